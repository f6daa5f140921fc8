"""QueuedEmailBackend: the SMTP backend with a queue in front, under the path that 0.1.2 published."""

from __future__ import annotations

import smtplib
from functools import partial
from threading import RLock
from typing import Any

from django.core import mail
from django.core.mail.backends.smtp import EmailBackend

from ..discards import LOGGER, attach_handler
from ..transport.connection import DeliverySMTP, DeliverySMTPOverSSL
from .base import QueueingMixin

__all__ = ["FORMATTER", "LFH", "LOGGER", "QueuedEmailBackend"]

LFH = attach_handler()  # 0.1.2
FORMATTER = LFH.formatter  # 0.1.2

#: What we put in the place of smtplib's own classes, and of nothing else.
_CONNECTION_CLASSES = {smtplib.SMTP: DeliverySMTP, smtplib.SMTP_SSL: DeliverySMTPOverSSL}


class QueuedEmailBackend(QueueingMixin, EmailBackend):
    """Queues messages, and delivers them over SMTP when ``send_queued_messages()`` is called.

    There to override: the hooks of QueueingMixin, ``open()`` (a login by other means), ``_send()`` (a signature, a
    log), ``connection_class`` and ``ssl_context``. Each works as in Django's own backend.
    """

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

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """A hook of 2015 knows nothing of threads."""
        return not self._has_own_hook

    @property
    def connection_class(self) -> Any:
        """smtplib's class, extended while delivering; a patched smtplib, and a site's own class, are left alone."""
        chosen = super().connection_class
        extended = _CONNECTION_CLASSES.get(chosen)
        if extended is None or self._session is None:
            return chosen
        return partial(extended, deadline=self._session.deadline)

    def _copy_for_worker(self) -> QueuedEmailBackend:
        duplicate: Any = super()._copy_for_worker()
        duplicate.connection, duplicate._lock = None, RLock()
        if hasattr(duplicate, "_partial_connection"):
            duplicate._partial_connection = None
        return duplicate  # type: ignore[no-any-return]
