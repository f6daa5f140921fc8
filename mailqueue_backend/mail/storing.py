"""The storing half of a queued backend: ``send_messages()`` puts messages into the queue."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import local
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..envelope import OURS, Envelope, dumps, latest_epoch, naive_local
from ..errors import ConfigurationError, QueueUnavailable, UnstorableMessage
from ..logs import get_logger, speaking
from ..queues import adapt, open_queue
from ..queues.base import MessageQueue
from ..settings import conf
from .copying import detached_copy, refuse_broken_headers, stamped
from .mailers import configured

logger = get_logger("storing")


class StoringMixin(BaseEmailBackend):
    """Stores what it is given to send."""

    def __init__(self, *args: Any, queue: str | None = None, fail_silently: bool = False, **kwargs: Any) -> None:
        """Take what the backend behind takes, and the name of a queue other than MAIL_QUEUE_NAME.

        ``fail_silently`` is about storing; the backend behind never hears of it.
        """
        super().__init__(*args, **kwargs)
        self.fail_silently = fail_silently
        self._queue: MessageQueue | None = None
        self._queue_name = queue

    @property
    def stamps_headers(self) -> bool:
        """A message gets its Message-ID and Date when it is stored, so that all its tries are the same message.

        That is for SMTP, which sends our headers as they are.
        """
        return isinstance(self, SMTPBackend)

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

    def send_messages(self, email_messages: Iterable[Any], **kwargs: Any) -> int:
        """Queue the messages, all or none, and return how many; ``kwargs`` are stored with each.

        Raises QueueUnavailable, unless ``fail_silently`` (then it returns 0), UnstorableMessage for a message
        that cannot be pickled, and Django's ValueError for a newline in a header. Mail about what this package
        logs is not queued: it returns 0.
        """
        messages = [] if speaking() else list(email_messages or ())
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
        _refuse_circle(email_messages)
        payloads = [
            self._serialise(message, f"Message {number} of {len(email_messages)}", kwargs)
            for number, message in enumerate(email_messages, start=1)
        ]
        if payloads:
            self.que.write_many(*payloads)

    def _serialise(self, message: Any, which: str, kwargs: dict[str, Any]) -> bytes:
        refuse_broken_headers(message)
        given = kwargs.get("created")
        created = naive_local(given) if given else datetime.now()
        epoch = latest_epoch(created) if given else created.timestamp()
        ours = {"created": created, "created_epoch": epoch}
        if configured() is not None:
            ours["using"] = getattr(self, "alias", None)
        try:
            copy = self._make_pickleable(message)
            if self.stamps_headers and isinstance(copy, EmailMessage):
                copy = stamped(copy)
            return self._wrap(copy, **{**kwargs, "created": created, OURS: ours})
        except Exception as error:  # pickling runs the code of whatever hangs on the message
            raise UnstorableMessage(f"{which} cannot be queued, since it cannot be pickled: {error}") from error

    @staticmethod
    def _wrap(email: Any, created: datetime | None = None, **kwargs: Any) -> bytes:
        """Serialise a message, ``kwargs`` beside it, as created now or at the given naive local time."""
        return dumps(Envelope(email, created or datetime.now(), kwargs))

    @staticmethod
    def _make_pickleable(message: Any) -> Any:
        """Copy a message without its connection; the caller's own, and its headers, stay as they are."""
        return detached_copy(message)


#: What this thread is delivering.
_thread = local()


@contextmanager
def in_delivery(message: Any) -> Iterator[None]:
    """Let it be known that this thread is delivering a message, which shall not be queued again by that."""
    outer = getattr(_thread, "message", None)
    _thread.message = message
    try:
        yield
    finally:
        _thread.message = outer


def _refuse_circle(messages: list[Any]) -> None:
    """Refuse what comes from a backend that delivers by queueing: it would never arrive, and never expire."""
    delivered = getattr(_thread, "message", None)
    if delivered is not None and any(message is delivered for message in messages):
        raise ConfigurationError("The backend that delivers what is queued queues it again: no mail would arrive.")
