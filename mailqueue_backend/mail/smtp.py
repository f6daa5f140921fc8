"""QueuedEmailBackend: the SMTP backend with a queue in front, under the path that 0.1.2 published."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, RLock
from typing import Any

from django.core import mail
from django.core.mail.backends.smtp import EmailBackend

from ..delivery.deadlines import Deadline
from ..discards import LOGGER, attach_handler
from .base import QueueingMixin
from .connection import DeliverySMTP, DeliverySMTPOverSSL
from .pipelining import PipeliningFailed
from .refusals import refusals

__all__ = ["FORMATTER", "LFH", "LOGGER", "QueuedEmailBackend"]

LFH = attach_handler()  # 0.1.2
FORMATTER = LFH.formatter  # 0.1.2

#: Messages that one connection carries at most; servers often allow so many, and no more.
MESSAGES_PER_CONNECTION = 100
#: Seconds that one step of a delivery may block where no timeout is configured.
TIMEOUT = 60
#: What we put in the place of smtplib's own classes, and of nothing else.
_CONNECTION_CLASSES = {smtplib.SMTP: DeliverySMTP, smtplib.SMTP_SSL: DeliverySMTPOverSSL}


class QueuedEmailBackend(QueueingMixin, EmailBackend):
    """Queues messages, and delivers them over one SMTP connection when ``send_queued_messages()`` is called."""

    copyable = True

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
        #: Pipelining has failed; shared with the helpers.
        self._plain = Event()

    # the connection

    @property
    def connection_class(self) -> Any:
        """smtplib's class as we extend it; a patched smtplib, and a site's own class, are left alone."""
        chosen = super().connection_class
        extended = _CONNECTION_CLASSES.get(chosen)
        if extended is None:
            return chosen
        return partial(extended, deadline=self._deadline or Deadline(), pipelining=not self._plain.is_set())

    def open(self) -> bool | None:
        """Connect while delivering, unless there is a usable connection; None otherwise.

        A new connection is reported as an old one (False): Django's send_messages() leaves those open.
        """
        self._retire_connection()
        opened = False
        try:
            answer = super().open()
            opened = True
        finally:
            if not opened:
                self._drop_connection()
        return None if answer is None else False

    def _retire_connection(self) -> None:
        """Part with a connection that smtplib or the server has closed, or that has carried enough."""
        connection = self.connection
        if connection is None:
            return
        if not getattr(connection, "usable", lambda: getattr(connection, "sock", True) is not None)():
            self._drop_connection()
        elif getattr(connection, "carried", 0) >= MESSAGES_PER_CONNECTION:
            self._hang_up()

    def _drop_connection(self) -> None:
        """Close without a word to the server, a half-open connection too: it may lack its TLS or its login."""
        for name in ("connection", "_partial_connection"):
            connection = getattr(self, name, None)
            if connection is not None:
                setattr(self, name, None)
                connection.close()

    @contextmanager
    def _delivering(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        timeout = self.timeout
        self.timeout = TIMEOUT if timeout is None else timeout
        try:
            with super()._delivering(*args, **kwargs):
                yield
        finally:
            self.timeout = timeout

    def _helper(self) -> QueueingMixin:
        helper = super()._helper()
        helper.connection, helper._lock = None, RLock()  # type: ignore[attr-defined]
        return helper

    # one message

    def _send(self, email_message: Any) -> bool:
        """Deliver one message, over a new connection where the old one may be what the server objects to."""
        try:
            return self._send_once(email_message)
        except PipeliningFailed:
            self._plain.set()
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code not in (421, 452) or getattr(self.connection, "carried", 1) == 1:
                raise
        self._drop_connection()
        self.open()
        return self._send_once(email_message)

    def _send_once(self, email_message: Any) -> bool:
        """Deliver one message; drop the connection when an error may have left it in mid-transaction."""
        settled = False
        try:
            sent: bool = super()._send(email_message)  # type: ignore[misc]
            settled = True
            self._note_refused(email_message, getattr(self.connection, "refused", None))
        except smtplib.SMTPRecipientsRefused as error:
            settled = True
            self._note_refused(email_message, error.recipients)
            raise
        except smtplib.SMTPResponseException as error:
            settled = 400 <= error.smtp_code < 600  # after a refusal, smtplib has made the connection ready
            raise
        finally:
            if not settled:
                self._drop_connection()
        return sent

    def _note_refused(self, message: Any, replies: Any) -> None:
        addresses = getattr(self.connection, "recipients", None)
        if isinstance(replies, dict) and isinstance(addresses, list):
            self._refused = refusals(message.recipients(), addresses, replies)
