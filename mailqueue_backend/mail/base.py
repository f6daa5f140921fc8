"""QueueingMixin: store messages, and deliver them later through the backend class that it extends."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..delivery.deadlines import Deadline
from ..delivery.drain import Drain
from ..delivery.limits import DrainOptions
from ..delivery.mailer import Mailer
from ..delivery.report import DOQUEUE, NOQUEUE, SENT, DrainResult, Report
from ..delivery.session import Session
from ..delivery.troubles import Troubles
from ..discards import attach_handler
from ..envelope import Envelope, dumps
from ..errors import QueueUnavailable
from ..logs import get_logger, is_about_our_records
from ..queues import adapt, open_queue
from ..queues.base import MessageQueue
from ..settings import conf
from .enqueue import announce_queued, detached_copy, has_recipients, serialise, write
from .ignored import server_arguments, warn_of_ignored
from .mailers import DEFAULT_ALIAS, mailers_setting, queueing_mailers, with_mailer_for_unnamed

logger = get_logger("storing")
attach_handler()


class QueueingMixin(BaseEmailBackend):
    """Mixin for a Django e-mail backend: ``send_messages()`` queues, and ``send_queued_messages()`` delivers.

    ``report`` holds all figures of the last drain, ``options`` the options of the next one.
    """

    SENT = SENT
    NOQUEUE = NOQUEUE
    DOQUEUE = DOQUEUE

    #: The alias in Django 6.1's MAILERS; None: the backend comes from EMAIL_BACKEND, or was instantiated directly.
    alias: str | None = None
    #: Whether several threads of a drain may deliver, each through its own copy of this backend.
    parallel = False
    #: The session that delivers through this backend; None: the backend only queues.
    _session: Session | None = None

    def __init__(
        self, *args: Any, test: bool = False, queue: str | None = None, fail_silently: bool = False, **kwargs: Any
    ) -> None:
        """Accept the arguments of the extended backend, and in ``queue`` a queue name other than MAIL_QUEUE_NAME.

        ``fail_silently`` applies to storing only, and is not passed to the extended backend. ``test`` is accepted for
        compatibility with 0.1.2, and has no effect.
        """
        super().__init__(*args, **kwargs)
        self._ignorable = server_arguments(kwargs)
        self.fail_silently = fail_silently
        self.report = Report()
        self.options = DrainOptions()
        self._queue: MessageQueue | None = None
        self._queue_name = queue

    # storing

    @property
    def queue_name(self) -> str:
        """Name of the queue."""
        return self._queue.name if self._queue is not None else self._queue_name or conf.MAIL_QUEUE_NAME

    @property
    def que(self) -> MessageQueue:
        """The queue, opened at first use. A subclass may set it to any queue-front queue."""
        if self._queue is None:
            self._queue = open_queue(self.queue_name)
        return self._queue

    @que.setter
    def que(self, queue: Any) -> None:
        self._queue = adapt(queue)

    @property
    def stamps_headers(self) -> bool:
        """Whether to add a Message-ID and a Date when a message is stored, so that each retry sends the same ones.

        True for SMTP, which sends these headers unchanged.
        """
        return isinstance(self, SMTPBackend)

    def send_messages(self, email_messages: Iterable[Any], **kwargs: Any) -> int:
        """Queue the messages, all or none, and return how many; ``kwargs`` are stored with each.

        Raises QueueUnavailable, or returns 0 if ``fail_silently`` is set. Raises UnstorableMessage for a message that
        cannot be pickled or is too large, and the error of Django or Python for one that Django could not send: a
        newline in a header, an invalid address, text that cannot be encoded, an unknown charset. A message without
        recipients is neither queued nor counted, unless a hook may add some. Nor is mail that a log handler sends about
        a record of this package.
        """
        messages = [message for message in email_messages or () if not is_about_our_records(message)]
        if not self._has_own_hook:
            messages = [message for message in messages if has_recipients(message)]
        if self._ignorable and messages:
            warn_of_ignored(self, self._ignorable)
        try:
            self._store(messages, **kwargs)
        except QueueUnavailable as error:
            if not self.fail_silently:
                raise
            logger.warning("%d message(s) could not be queued: %s", len(messages), error)
            return 0
        return len(messages)

    def _store(self, email_messages: list[Any], **kwargs: Any) -> None:
        """Serialise all messages, then write them in one call."""
        messages = serialise(self, email_messages, kwargs)
        if messages:
            write(self.que, [message.payload for message in messages])
        announce_queued(self, messages)

    @staticmethod
    def _wrap(email: Any, created: datetime | None = None, **kwargs: Any) -> bytes:
        """Serialise a message with ``kwargs``, created now or at the given naive local time."""
        return dumps(Envelope(email, created or datetime.now(), kwargs))

    @staticmethod
    def _make_pickleable(message: Any) -> Any:
        """Return a copy of a message without its connection; the original and its headers are not changed."""
        return detached_copy(message)

    # delivering

    def send_queued_messages(self, expire: float | None = None) -> DrainResult:
        """Try each queued message once; one that fails and is older than ``expire`` seconds is discarded.

        Raises QueueUnavailable. May be called in any thread.
        """
        # A hook or another thread may call this while this backend is delivering.
        backend = self if self._session is None else self._copy_for_worker()
        drain = Drain(backend, backend._mailers(), conf.MAIL_QUEUE_EXPIRE if expire is None else expire)
        self.report = drain.report
        try:
            return drain.run().result
        finally:
            self.report = drain.report

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]:
        """Deliver one message, and return SENT, DOQUEUE (try again) or NOQUEUE (give up).

        A hook for subclasses: its changes to the message and to ``email_message_dict`` survive a requeue. A message
        that fails is given up, and logged here, if it was created before ``expired``. A subclass whose hook may run
        in several threads at once sets ``parallel = True``.
        """
        if self._session is not None:
            return self._session.send(email_message, expired, email_message_dict)
        session = Session(Mailer(self, Troubles()), self, Deadline(), self.options.stop)
        try:
            return session.send(email_message, expired, email_message_dict)
        finally:
            session.close()

    def _send_now(self, message: Any) -> Any:
        """Send a message with the extended backend, and return the result of its send_messages()."""
        return super().send_messages([message])

    def open(self) -> Any:
        """Connect if a drain is delivering; otherwise do nothing, since storing needs no connection."""
        if self._session is None:
            return None
        if not self._session.link.is_busy:
            # A hook sends with the extended backend: it uses the session's connection.
            self._session.link.connect()
        return super().open()

    @property
    def _has_own_hook(self) -> bool:
        return type(self)._send_queued_messages is not QueueingMixin._send_queued_messages

    def _copy_for_worker(self) -> QueueingMixin:
        """Return a copy of this backend for another thread; it makes its own connection."""
        duplicate = copy.copy(self)
        duplicate._session = None
        return duplicate

    def _mailers(self) -> dict[str | None, QueueingMixin]:
        """Return the backends for the messages of this queue, by the alias that they name; None: they name no mailer.

        Mailers of other queues are included: a message may be older than the mailer's queue setting.
        """
        if mailers_setting() is None:
            return {None: self, DEFAULT_ALIAS: self}
        mailers, _ = queueing_mailers()
        if self.alias is None:  # instantiated directly
            return {**mailers, None: self}
        return with_mailer_for_unnamed({**mailers, self.alias: self}, self.queue_name)
