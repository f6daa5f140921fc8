"""QueuedEmailBackend for any transport: it queues messages, and another backend delivers them."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..delivery.session import TIMEOUT
from ..errors import ConfigurationError, interrupts
from ..settings import conf
from .base import QueueingMixin
from .mailers import import_backend, is_queueing, mailer_class, mailers_setting, make_mailer


class RelayBackend(BaseEmailBackend):
    """Delivers through the mailer ``deliver_using``, or through the backend of MAIL_QUEUE_DELIVERY_BACKEND."""

    def __init__(self, *args: Any, deliver_using: str | None = None, **kwargs: Any) -> None:
        """Accept the alias of the mailer that delivers. Raises ConfigurationError if it cannot deliver."""
        super().__init__(*args, **kwargs)
        self.deliver_using = deliver_using
        self.delivers_with = delivering_class(deliver_using)
        self._target: Any = None

    def open(self) -> Any:
        """Connect the backend that delivers."""
        if self._target is None:
            self._target = self._new_target()
        return self._target.open()

    def close(self) -> None:
        """Close the backend that delivers."""
        if self._target is not None:
            self._target.close()

    def send_messages(self, email_messages: Any) -> Any:
        """Deliver the messages, over one connection as long as none of them fails."""
        done = False
        try:
            self.open()
            answer = self._target.send_messages(email_messages)
            done = True
        finally:
            if not done:
                # The connection may be in any state, so the next message gets a new one.
                try:
                    self.close()
                except interrupts():
                    raise
                except Exception:  # noqa: BLE001 - the first error is the one to report
                    self._target = None
        return answer

    def _new_target(self) -> Any:
        """Return a new instance of the backend that delivers. It raises its errors, and SMTP always has a timeout."""
        target = self._instantiate() if self.deliver_using is None else make_mailer(self.deliver_using)
        target.fail_silently = False
        if isinstance(target, SMTPBackend) and target.timeout is None:
            target.timeout = TIMEOUT
        return target

    def _instantiate(self) -> Any:
        backend_class: Any = self.delivers_with
        # Django >= 6.1: its SMTP backend warns if it is instantiated without an alias argument.
        needs_alias = hasattr(mail, "mailers") and backend_class.__init__ is SMTPBackend.__init__
        return backend_class(alias=None) if needs_alias else backend_class()


class QueuedEmailBackend(QueueingMixin, RelayBackend):
    """Queues messages, and delivers them through another backend when ``send_queued_messages()`` is called."""

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """False if the hook is overridden, since hooks written for 0.1.2 may not be thread-safe."""
        return not self._has_own_hook

    @property
    def stamps_headers(self) -> bool:
        """Whether the backend that delivers is Django's SMTP backend."""
        return issubclass(self.delivers_with, SMTPBackend)

    def _copy_for_worker(self) -> QueuedEmailBackend:
        duplicate: Any = super()._copy_for_worker()
        duplicate._target = None
        return duplicate  # type: ignore[no-any-return]


def delivering_class(alias: str | None) -> type[BaseEmailBackend]:
    """Return the class that delivers for a relay. Raises ConfigurationError if there is none, or if it queues."""
    if alias is not None:
        setting = f"deliver_using = {alias!r}"
        if alias not in (mailers_setting() or {}):
            raise ConfigurationError(f"{setting} is not a mailer in MAILERS.")
        backend_class = mailer_class(alias)
    elif mailers_setting() is not None:
        raise ConfigurationError('A relay needs OPTIONS = {"deliver_using": ALIAS}, the mailer that delivers.')
    elif not conf.MAIL_QUEUE_DELIVERY_BACKEND:
        raise ConfigurationError('A relay needs MAIL_QUEUE_DELIVERY_BACKEND = "dotted.Backend", which delivers.')
    else:
        setting = f"MAIL_QUEUE_DELIVERY_BACKEND = {conf.MAIL_QUEUE_DELIVERY_BACKEND!r}"
        backend_class = import_backend("MAIL_QUEUE_DELIVERY_BACKEND", conf.MAIL_QUEUE_DELIVERY_BACKEND)
    if is_queueing(backend_class):
        raise ConfigurationError(f"{setting} queues its mail itself: a relay needs a backend that delivers.")
    return backend_class
