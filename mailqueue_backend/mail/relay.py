"""QueuedEmailBackend for any way of delivering: it queues, and another backend delivers."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..delivery.session import TIMEOUT
from ..errors import ConfigurationError, interrupts
from ..settings import conf
from .base import QueueingMixin
from .mailers import configured, imported, mailer, mailer_class, queues


class RelayBackend(BaseEmailBackend):
    """Delivers through the mailer ``deliver_using``, or through the backend of MAIL_QUEUE_DELIVERY_BACKEND."""

    def __init__(self, *args: Any, deliver_using: str | None = None, **kwargs: Any) -> None:
        """Take the alias of the mailer that delivers. Raises ConfigurationError when it cannot."""
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
                # Whatever state the connection is in, the next message shall not meet it.
                try:
                    self.close()
                except interrupts():
                    raise
                except Exception:  # noqa: BLE001 - the error that led here is the one to be told
                    self._target = None
        return answer

    def _new_target(self) -> Any:
        """Make the backend that delivers: it tells its errors, and SMTP does not wait for ever."""
        target = self._made_by_hand() if self.deliver_using is None else mailer(self.deliver_using)
        target.fail_silently = False
        if isinstance(target, SMTPBackend) and target.timeout is None:
            target.timeout = TIMEOUT
        return target

    def _made_by_hand(self) -> Any:
        backend_class: Any = self.delivers_with
        # Django >= 6.1: its SMTP backend warns, unless it is told that there is no alias.
        warns = hasattr(mail, "mailers") and backend_class.__init__ is SMTPBackend.__init__
        return backend_class(alias=None) if warns else backend_class()


class QueuedEmailBackend(QueueingMixin, RelayBackend):
    """Queues messages, and delivers them through another backend when ``send_queued_messages()`` is called."""

    @property
    def parallel(self) -> bool:  # type: ignore[override]
        """A hook of 2015 knows nothing of threads."""
        return not self._has_own_hook

    @property
    def stamps_headers(self) -> bool:
        """As the backend that delivers wants it."""
        return issubclass(self.delivers_with, SMTPBackend)

    def _copy_for_worker(self) -> QueuedEmailBackend:
        duplicate: Any = super()._copy_for_worker()
        duplicate._target = None
        return duplicate  # type: ignore[no-any-return]


def delivering_class(alias: str | None) -> type[BaseEmailBackend]:
    """Find the class that delivers for a relay. Raises ConfigurationError when there is none, or when it queues."""
    if alias is not None:
        where = f"deliver_using = {alias!r}"
        if alias not in (configured() or {}):
            raise ConfigurationError(f"{where} is not a mailer in MAILERS.")
        found = mailer_class(alias)
    elif configured() is not None:
        raise ConfigurationError('A relay needs OPTIONS = {"deliver_using": ALIAS}, the mailer that delivers.')
    elif not conf.MAIL_QUEUE_DELIVERY_BACKEND:
        raise ConfigurationError('A relay needs MAIL_QUEUE_DELIVERY_BACKEND = "dotted.Backend", which delivers.')
    else:
        where = f"MAIL_QUEUE_DELIVERY_BACKEND = {conf.MAIL_QUEUE_DELIVERY_BACKEND!r}"
        found = imported("MAIL_QUEUE_DELIVERY_BACKEND", conf.MAIL_QUEUE_DELIVERY_BACKEND)
    if queues(found):
        raise ConfigurationError(f"{where} queues its mail itself: a relay needs a backend that delivers.")
    return found
