"""QueuedEmailBackend for any way of delivering: it queues, and another backend delivers."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.utils.module_loading import import_string

from ..errors import ConfigurationError
from ..settings import conf
from .base import QueueingMixin
from .mailers import configured, mailer, mailer_class, queues


class RelayBackend(BaseEmailBackend):
    """Delivers through the mailer ``deliver_using``, or through the backend of MAIL_QUEUE_DELIVERY_BACKEND."""

    def __init__(
        self, *args: Any, deliver_using: str | None = None, fail_silently: bool = False, **kwargs: Any
    ) -> None:
        """Take the alias of the mailer that delivers. Raises ConfigurationError when it cannot."""
        super().__init__(*args, **kwargs)
        self.fail_silently = fail_silently
        self.deliver_using = deliver_using
        self.delivers_with = delivering_class(deliver_using)
        self._target: Any = None

    def open(self) -> Any:
        """Connect the backend that delivers."""
        return self._delivery().open()

    def close(self) -> None:
        """Have the backend that delivers hang up."""
        if self._target is not None:
            self._target.close()

    def send_messages(self, email_messages: Any) -> Any:
        """Have the messages delivered."""
        return self._delivery().send_messages(email_messages)

    def _delivery(self) -> Any:
        if self._target is None:
            if self.deliver_using is not None:
                self._target = mailer(self.deliver_using)
            else:
                # Django >= 6.1: made without MAILERS, and meant so; without this word it warns.
                meant = hasattr(mail, "mailers") and issubclass(self.delivers_with, SMTPBackend)
                self._target = self.delivers_with(**({"alias": None} if meant else {}))
        return self._target


class QueuedEmailBackend(QueueingMixin, RelayBackend):
    """Queues messages, and delivers them through another backend when ``send_queued_messages()`` is called."""

    @property
    def stamps_headers(self) -> bool:  # type: ignore[override]
        """Only SMTP sends our headers as they are."""
        return issubclass(self.delivers_with, SMTPBackend)

    def _helper(self) -> QueueingMixin:
        helper = super()._helper()
        helper._target = None  # type: ignore[attr-defined]
        return helper


def delivering_class(alias: str | None) -> type[BaseEmailBackend]:
    """Find the class that delivers for a relay. Raises ConfigurationError when there is none, or when it queues."""
    if alias is not None:
        if alias not in (configured() or {}):
            raise ConfigurationError(f"deliver_using = {alias!r} is not a mailer in MAILERS.")
        found, where = mailer_class(alias), f"deliver_using = {alias!r}"
    elif configured() is not None:
        raise ConfigurationError('A relay needs OPTIONS = {"deliver_using": ALIAS}, the mailer that delivers.')
    elif not conf.MAIL_QUEUE_DELIVERY_BACKEND:
        raise ConfigurationError('A relay needs MAIL_QUEUE_DELIVERY_BACKEND = "dotted.Backend", which delivers.')
    else:
        found = import_string(conf.MAIL_QUEUE_DELIVERY_BACKEND)
        where = f"MAIL_QUEUE_DELIVERY_BACKEND = {conf.MAIL_QUEUE_DELIVERY_BACKEND!r}"
    if queues(found):
        raise ConfigurationError(f"{where} queues its mail itself: a relay needs a backend that delivers.")
    return found
