"""QueueingMixin: the backend that stores messages, and delivers them later through the class behind it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import RLock
from typing import Any

from ..delivery.breaker import Breaker
from ..delivery.deadlines import Deadline
from ..delivery.drain import Drain
from ..delivery.outcomes import DOQUEUE, NOQUEUE, SENT, DrainResult, Outcome, Report
from ..delivery.quota import DrainOptions
from ..discards import attach_handler
from ..settings import conf
from .refusals import Refusal, addressed_to
from .storing import StoringMixin
from .verdict import after_delivery, after_failure, ours

logger = logging.getLogger("mailqueue_backend.delivery")
attach_handler()


class QueueingMixin(StoringMixin):
    """Put before a Django e-mail backend, it makes ``send_messages()`` queue, and ``send_queued_messages()`` deliver.

    ``report`` holds all figures of the last drain, ``options`` what the next one is asked to do.
    """

    SENT = SENT
    NOQUEUE = NOQUEUE
    DOQUEUE = DOQUEUE

    #: Other workers of the drain have a connection: one that gets none leaves the work to them.
    helping = False

    def __init__(self, *args: Any, test: bool = False, **kwargs: Any) -> None:
        """Take what the backend behind takes; ``test`` is accepted for 0.1.2's sake and changes nothing."""
        super().__init__(*args, **kwargs)
        self.report = Report()
        self.options = DrainOptions()
        self._breaker = Breaker()
        self._deadline: Deadline | None = None
        self._depth = 0
        #: Whom the server turned away in the last try; a transport that cannot tell leaves it empty.
        self._refused: list[Refusal] = []
        self._drain_lock = RLock()

    def send_queued_messages(self, expire: float | None = None) -> DrainResult:
        """Try each queued message once; one that fails and is older than ``expire`` seconds is discarded.

        Raises QueueUnavailable. Works in any thread.
        """
        with self._drain_lock:
            drain = Drain(self, conf.MAIL_QUEUE_EXPIRE if expire is None else expire)
            self.report = drain.report
            return drain.run().result

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]:
        """Deliver one message and say what becomes of it: SENT, DOQUEUE (try again) or NOQUEUE (give it up).

        A hook for subclasses: what it puts into ``email_message_dict`` survives a requeue. A message that fails
        is given up when it was created before ``expired``; that is logged here. A subclass that may be called
        in several threads at once says ``parallel = True``.
        """
        remaining = ours(email_message_dict).get("remaining")
        outgoing = email_message if remaining is None else addressed_to(email_message, remaining)
        self._refused = []
        try:
            with self._delivering():
                # Of the class behind: our own stores.
                sent = super(StoringMixin, self).send_messages([outgoing])
        except Exception as error:  # rendering and transport are not ours
            if not isinstance(error, OSError):
                logger.exception("A message cannot be sent.")
            return self._failed(email_message, expired, email_message_dict, error)
        if sent == 0:
            return self._failed(email_message, expired, email_message_dict, "nobody to send it to, or not sent")
        return after_delivery(email_message, expired, email_message_dict, self._refused)

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome:
        """Judge a message that nobody got; not in haste, and not when another worker can do better."""
        if self.leaving:
            return self.DOQUEUE
        return after_failure(message, expired, fields, error, self._refused, reached=not self.unreachable)

    # what the drain needs

    @property
    def unreachable(self) -> bool:
        """No connection can be made."""
        return self._breaker.error is not None

    @property
    def leaving(self) -> bool:
        """This worker shall go now: what it has in hand was not really tried."""
        return (self.unreachable and self.helping) or self.options.stop.forced_by is not None

    @property
    def parallel(self) -> bool:
        """The hook may be called in several threads; a hook of 2015 knows nothing of threads."""
        return type(self)._send_queued_messages is QueueingMixin._send_queued_messages

    @contextmanager
    def _delivering(
        self, deadline: Deadline | None = None, connected: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Let open() connect and errors be raised; the outermost block hangs up at its end."""
        self._depth += 1
        if self._depth == 1:
            silent, self.fail_silently = self._fails_silently, False
            self._deadline, self._breaker = deadline, Breaker(connected)
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._hang_up()
                self.fail_silently = silent

    def _helper(self) -> QueueingMixin:
        """Copy this backend for another thread; the copy has a connection of its own."""
        duplicate = copy.copy(self)
        duplicate.helping = True
        duplicate._depth = 0
        return duplicate

    def open(self) -> Any:
        """Connect while delivering. Storing needs no connection, so that ``with get_connection():`` makes none."""
        if not self._depth:
            return None
        known = self.unreachable
        try:
            return self._breaker.connect(self._connect)
        except Exception as error:
            if not known:
                # A server may limit its connections; that is nothing to worry about.
                logger.log(logging.INFO if self.helping else logging.WARNING, "No connection can be made: %s", error)
            raise

    def _connect(self) -> Any:
        return super().open()

    def _hang_up(self) -> None:
        """Close the connection; what the server says to that changes nothing."""
        try:
            self.close()
        except Exception:  # any transport may stand behind
            logger.debug("Closing the connection failed.", exc_info=True)
