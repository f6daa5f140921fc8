"""QueueingMixin: the backend that stores messages, and delivers them later through the class behind it."""

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
from ..discards import attach_handler
from ..envelope import Envelope, dumps
from ..errors import QueueUnavailable
from ..logs import get_logger, in_handling
from ..queues import adapt, open_queue
from ..queues.base import MessageQueue
from ..settings import conf
from .enqueue import detached_copy, serialise
from .mailers import DEFAULT_ALIAS, configured, queueing_mailers, with_unnamed

logger = get_logger("storing")
attach_handler()


class QueueingMixin(BaseEmailBackend):
    """Put before a Django e-mail backend, it makes ``send_messages()`` queue, and ``send_queued_messages()`` deliver.

    ``report`` holds all figures of the last drain, ``options`` what the next one is asked to do.
    """

    SENT = SENT
    NOQUEUE = NOQUEUE
    DOQUEUE = DOQUEUE

    #: Of Django 6.1's MAILERS; None: the backend was made by EMAIL_BACKEND, or by hand.
    alias: str | None = None
    #: Several threads of a drain may deliver, each by a copy of this backend.
    parallel = False
    #: The session that delivers by this backend; None: it only queues.
    _session: Session | None = None

    def __init__(
        self, *args: Any, test: bool = False, queue: str | None = None, fail_silently: bool = False, **kwargs: Any
    ) -> None:
        """Take what the backend behind takes, and the name of a queue other than MAIL_QUEUE_NAME.

        ``fail_silently`` is about storing; the backend behind never hears of it. ``test`` is accepted for 0.1.2's
        sake and changes nothing.
        """
        super().__init__(*args, **kwargs)
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
        """A message gets its Message-ID and Date when it is stored, so that all its tries are the same message.

        That is for SMTP, which sends our headers as they are.
        """
        return isinstance(self, SMTPBackend)

    def send_messages(self, email_messages: Iterable[Any], **kwargs: Any) -> int:
        """Queue the messages, all or none, and return how many; ``kwargs`` are stored with each.

        Raises QueueUnavailable, unless ``fail_silently`` (then it returns 0), UnstorableMessage for a message
        that cannot be pickled, and Django's ValueError for a newline in a header. Mail about what this package
        logs is not queued: it returns 0.
        """
        messages = [] if getattr(in_handling, "record", None) else list(email_messages or ())
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
        payloads = serialise(self, email_messages, kwargs)
        if payloads:
            self.que.write_many(*payloads)

    @staticmethod
    def _wrap(email: Any, created: datetime | None = None, **kwargs: Any) -> bytes:
        """Serialise a message, ``kwargs`` beside it, as created now or at the given naive local time."""
        return dumps(Envelope(email, created or datetime.now(), kwargs))

    @staticmethod
    def _make_pickleable(message: Any) -> Any:
        """Copy a message without its connection; the caller's own, and its headers, stay as they are."""
        return detached_copy(message)

    # delivering

    def send_queued_messages(self, expire: float | None = None) -> DrainResult:
        """Try each queued message once; one that fails and is older than ``expire`` seconds is discarded.

        Raises QueueUnavailable. Works in any thread.
        """
        # While it delivers, a hook of its own or another thread may call this.
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
        """Deliver one message and say what becomes of it: SENT, DOQUEUE (try again) or NOQUEUE (give it up).

        A hook for subclasses: what it leaves in the message and in ``email_message_dict`` survives a requeue. A
        message that fails is given up when it was created before ``expired``; that is logged here. A subclass that
        may be called in several threads at once says ``parallel = True``.
        """
        if self._session is not None:
            return self._session.send(email_message, expired, email_message_dict)
        session = Session(Mailer(self), self, Deadline(), self.options.stop)
        try:
            return session.send(email_message, expired, email_message_dict)
        finally:
            session.close()

    def _send_now(self, message: Any) -> Any:
        """Send a message by the class behind, and return how many that says it has sent."""
        return super().send_messages([message])

    def open(self) -> Any:
        """Connect while delivering. Storing needs no connection, so that ``with get_connection():`` makes none."""
        if self._session is None:
            return None
        if not self._session.is_busy:
            # A hook sends by the class behind: the connection is the session's all the same.
            self._session.connect()
        return super().open()

    @property
    def _has_own_hook(self) -> bool:
        return type(self)._send_queued_messages is not QueueingMixin._send_queued_messages

    def _copy_for_worker(self) -> QueueingMixin:
        """Copy this backend for a thread; the copy has a connection of its own."""
        duplicate = copy.copy(self)
        duplicate._session = None
        return duplicate

    def _mailers(self) -> dict[str | None, QueueingMixin]:
        """Return the backends by which what is queued may have been sent, by alias; None: of what names no mailer.

        A mailer whose mail goes to another queue is there too: some of its mail may be older than that.
        """
        if configured() is None:
            return {None: self, DEFAULT_ALIAS: self}
        mailers, _ = queueing_mailers()
        if self.alias is None:  # made by hand
            return {**mailers, None: self}
        return with_unnamed({**mailers, self.alias: self}, self.queue_name)
