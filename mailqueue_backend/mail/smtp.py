"""QueuedEmailBackend: the SMTP backend with a queue in front, under the path that 0.1.2 published."""

from __future__ import annotations

import smtplib
from typing import Any

from django.core import mail
from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend

from ..discards import LOGGER, attach_handler
from .base import QueueingMixin
from .copying import stamp_headers

__all__ = ["FORMATTER", "LFH", "LOGGER", "QueuedEmailBackend"]

LFH = attach_handler()  # 0.1.2
FORMATTER = LFH.formatter  # 0.1.2


class QueuedEmailBackend(QueueingMixin, EmailBackend):
    """Queues messages, and delivers them over one SMTP connection when ``send_queued_messages()`` is called."""

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        use_tls: bool | None = None,
        fail_silently: bool = False,
        test: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take what Django's SMTP backend takes; ``test`` is accepted for 0.1.2's sake and changes nothing."""
        if hasattr(mail, "mailers"):
            # Django >= 6.1: made without MAILERS, and meant so; without this word it warns.
            kwargs.setdefault("alias", None)
        super().__init__(
            host=host,
            port=port,
            username=username,
            password=password,
            use_tls=use_tls,
            fail_silently=fail_silently,
            test=test,
            **kwargs,
        )

    @staticmethod
    def _make_pickleable(message: Any) -> Any:
        """Copy a message without its connection, and give the copy the Message-ID and Date of all its tries."""
        duplicate = QueueingMixin._make_pickleable(message)
        if isinstance(duplicate, EmailMessage):
            stamp_headers(duplicate)
        return duplicate

    def open(self) -> bool | None:
        """Connect while delivering, unless there is a live connection; None otherwise.

        A new connection is reported as an old one (False): Django's send_messages() leaves those open.
        """
        if getattr(self.connection, "sock", True) is None:
            self.connection = None  # smtplib has closed it, as after a 421
        opened = False
        try:
            answer = super().open()
            opened = True
        finally:
            if not opened:
                self._drop_connection()
        return None if answer is None else False

    def _send(self, email_message: Any) -> bool:
        """Deliver one message; drop the connection when an error may have left it in mid-transaction."""
        settled = False
        try:
            sent: bool = super()._send(email_message)  # type: ignore[misc]
            settled = True
        except smtplib.SMTPException:
            settled = True  # smtplib has sent RSET, or has closed
            raise
        finally:
            if not settled:
                self._drop_connection()
        return sent

    def _drop_connection(self) -> None:
        """Close without a word to the server, a half-open connection too: it may lack its TLS or its login."""
        for name in ("connection", "_partial_connection"):
            connection = getattr(self, name, None)
            if connection is not None:
                setattr(self, name, None)
                connection.close()
