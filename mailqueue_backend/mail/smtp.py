"""QueuedEmailBackend: Django's SMTP backend with a queue in front, under the import path of 0.1.2."""

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

#: Replacements for smtplib's classes. Any other connection class is used unchanged.
_CONNECTION_CLASSES = {smtplib.SMTP: DeliverySMTP, smtplib.SMTP_SSL: DeliverySMTPOverSSL}


class QueuedEmailBackend(QueueingMixin, EmailBackend):
    """Queues messages, and delivers them over SMTP when ``send_queued_messages()`` is called.

    A subclass may override the hooks of QueueingMixin, ``open()`` (for another kind of login), ``_send()`` (to sign or
    log a message), ``connection_class`` and ``ssl_context``. All but the hooks work as in Django's backend.
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
        """Accept the arguments of Django's SMTP backend; ``test`` is accepted for 0.1.2, and has no effect."""
        if hasattr(mail, "mailers"):
            # Django >= 6.1: without this argument, the SMTP backend warns if it is not made from MAILERS.
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
        """False if the hook is overridden, since hooks written for 0.1.2 may not be thread-safe."""
        return not self._has_own_hook

    @property
    def connection_class(self) -> Any:
        """smtplib's class, extended while delivering. A patched smtplib, or a site's own class, is used unchanged."""
        chosen = super().connection_class
        extended = _CONNECTION_CLASSES.get(chosen)
        if extended is None or self._session is None:
            return chosen
        return partial(extended, deadline=self._session.deadline, waits_as_rfc=self._session.waits_as_rfc)

    def _copy_for_worker(self) -> QueuedEmailBackend:
        duplicate: Any = super()._copy_for_worker()
        duplicate.connection, duplicate._lock = None, RLock()
        if hasattr(duplicate, "_partial_connection"):
            duplicate._partial_connection = None
        return duplicate  # type: ignore[no-any-return]
