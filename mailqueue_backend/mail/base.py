"""QueueingMixin: the backend that stores messages, and delivers them later through the class behind it."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import RLock
from typing import Any

from django.core.mail.backends.base import BaseEmailBackend

from ..delivery import DOQUEUE, NOQUEUE, SENT, Drain, DrainResult, Outcome, Report
from ..discards import attach_handler, log_discard
from ..envelope import OURS, Envelope, created_epoch, dumps, latest_epoch
from ..errors import QueueUnavailable, UnstorableMessage
from ..queues import adapt, open_queue
from ..queues.base import MessageQueue
from ..settings import conf
from .copying import detached_copy, refuse_broken_headers

logger = logging.getLogger("mailqueue_backend.delivery")
attach_handler()


class QueueingMixin(BaseEmailBackend):
    """Put before a Django e-mail backend, it makes ``send_messages()`` queue, and ``send_queued_messages()`` deliver.

    ``report`` holds all figures of the last drain.
    """

    SENT = SENT
    NOQUEUE = NOQUEUE
    DOQUEUE = DOQUEUE

    def __init__(self, *args: Any, test: bool = False, **kwargs: Any) -> None:
        """Take what the backend behind takes; ``test`` is accepted for 0.1.2's sake and changes nothing."""
        super().__init__(*args, **kwargs)
        self.report = Report()
        self._queue: MessageQueue | None = None
        self._deliveries = 0
        self._drain_lock = RLock()

    @property
    def que(self) -> MessageQueue:
        """The queue, opened at first use. A subclass may set it to any queue-front queue."""
        if self._queue is None:
            self._queue = open_queue(conf.MAIL_QUEUE_NAME)
        return self._queue

    @que.setter
    def que(self, queue: Any) -> None:
        self._queue = adapt(queue)

    # storing

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
        created = kwargs.get("created")
        epoch = created and latest_epoch(created)
        created = created or datetime.now()
        ours = {"created": created, "created_epoch": epoch or created.timestamp()}
        refuse_broken_headers(message)
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

    # delivering

    def send_queued_messages(self, expire: float | None = None) -> DrainResult:
        """Try each queued message once; one that fails and is older than ``expire`` seconds is discarded.

        Raises QueueUnavailable. Works in any thread.
        """
        with self._drain_lock, self._delivering():
            drain = Drain(self, conf.MAIL_QUEUE_EXPIRE if expire is None else expire)
            self.report = drain.report
            return drain.run().result

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]:
        """Deliver one message and say what becomes of it: SENT, DOQUEUE (try again) or NOQUEUE (give it up).

        A hook for subclasses: what it puts into ``email_message_dict`` survives a requeue. A message that fails
        is given up when it was created before ``expired``; that is logged here.
        """
        try:
            with self._delivering():
                sent = super().send_messages([email_message])
        except Exception as error:  # rendering and transport are not ours
            logger.warning("A message could not be sent: %s", error, exc_info=True)
            return self._failed(email_message, expired, email_message_dict, error)
        if sent == 0:
            return self._failed(email_message, expired, email_message_dict, "nobody to send it to, or not sent")
        return self.SENT

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome:
        """Give a message up when it has expired and that could be logged; else have it tried again."""
        try:
            if created_epoch(fields["created"], fields) >= expired.timestamp():
                return self.DOQUEUE
            log_discard(fields["created"], message.from_email, message.to, message.subject, error)
        except Exception:  # the log, or what a hook left in the fields
            logger.exception("A failed message stays in the queue, since its discard cannot be logged.")
            return self.DOQUEUE
        return self.NOQUEUE

    @contextmanager
    def _delivering(self) -> Iterator[None]:
        """Let open() connect and errors be raised; the outermost block hangs up."""
        silent, self._deliveries = self._fails_silently, self._deliveries + 1
        self.fail_silently = False
        try:
            yield
        finally:
            self._deliveries -= 1
            self.fail_silently = silent
            if not self._deliveries:
                self._hang_up()

    @property
    def _fails_silently(self) -> bool:
        # Django >= 6.1: not every backend has the attribute, and asking the base class for it warns.
        return bool(vars(self).get("fail_silently"))

    def open(self) -> Any:
        """Connect while delivering. Storing needs no connection, so that ``with get_connection():`` makes none."""
        return super().open() if self._deliveries else None

    def _hang_up(self) -> None:
        """Close the connection; what the server says to that changes nothing."""
        try:
            self.close()
        except Exception:  # any transport may stand behind
            logger.debug("Closing the connection failed.", exc_info=True)
