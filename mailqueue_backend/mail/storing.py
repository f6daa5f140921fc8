"""The storing half of a queued backend: ``send_messages()`` puts messages into the queue."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend

from ..envelope import OURS, Envelope, dumps, latest_epoch
from ..errors import QueueUnavailable, UnstorableMessage
from ..queues import adapt, open_queue
from ..queues.base import MessageQueue
from ..settings import conf
from .copying import detached_copy, refuse_broken_headers

logger = logging.getLogger("mailqueue_backend.storing")


class StoringMixin(BaseEmailBackend):
    """Stores what it is given to send."""

    _queue: MessageQueue | None = None

    @property
    def que(self) -> MessageQueue:
        """The queue, opened at first use. A subclass may set it to any queue-front queue."""
        if self._queue is None:
            self._queue = open_queue(conf.MAIL_QUEUE_NAME)
        return self._queue

    @que.setter
    def que(self, queue: Any) -> None:
        self._queue = adapt(queue)

    def send_messages(self, email_messages: Iterable[Any], **kwargs: Any) -> int:
        """Queue the messages, all or none, and return how many; ``kwargs`` are stored with each.

        Raises QueueUnavailable, unless ``fail_silently`` (then it returns 0), UnstorableMessage for a message
        that cannot be pickled, and Django's ValueError for a newline in a header.
        """
        messages = list(email_messages or ())
        try:
            self._store(messages, **kwargs)
        except QueueUnavailable:
            if not self._fails_silently:
                raise
            logger.exception("%d message(s) could not be queued.", len(messages))
            return 0
        return len(messages)

    def _store(self, email_messages: list[Any], **kwargs: Any) -> None:
        """Serialise all messages, then write them in one call."""
        payloads = [
            self._serialise(message, f"Message {number} of {len(email_messages)}", kwargs)
            for number, message in enumerate(email_messages, start=1)
        ]
        if payloads:
            self.que.write_many(*payloads)

    def _serialise(self, message: Any, which: str, kwargs: dict[str, Any]) -> bytes:
        refuse_broken_headers(message)
        created = kwargs.get("created") or datetime.now()
        epoch = latest_epoch(created) if kwargs.get("created") else created.timestamp()
        ours = {"created": created, "created_epoch": epoch}
        try:
            return self._wrap(self._make_pickleable(message), **{**kwargs, "created": created, OURS: ours})
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

    @property
    def _fails_silently(self) -> bool:
        # Django >= 6.1: not every backend has the attribute, and asking the base class for it warns.
        return bool(vars(self).get("fail_silently"))
