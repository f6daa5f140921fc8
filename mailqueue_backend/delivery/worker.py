"""A worker: take a message, let the backend deliver it, settle it with the queue, until nothing is left to take.

Whatever goes wrong with one message is that message's failure: it is logged, the message goes back, and the
worker goes on.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol, TypeVar

from ..envelope import Envelope, created_epoch, loads
from ..errors import QueueUnavailable, UnknownClass, Unreadable
from ..queues.base import MessageQueue, Reservation
from ..settings import conf
from .deadlines import Deadline
from .outcomes import Outcome, Report
from .quota import DrainOptions, Quota

logger = logging.getLogger("mailqueue_backend.delivery")

T = TypeVar("T")

#: So often a message is handed out without being settled, before it is taken to be what kills the drains.
HANDOUTS = 3
#: Seconds between the tries of a step with the queue: a database that restarts must not cost a second copy.
PAUSES = (0.1, 0.5, 2.0)
#: However long a message keeps failing, it is tried once in so many seconds.
LONGEST_DELAY = 3600


class Backend(Protocol):
    """What a drain needs of a backend; mail.base.QueueingMixin has it."""

    que: MessageQueue
    options: DrainOptions
    #: Of a copy that helps in another thread.
    helping: bool

    @property
    def unreachable(self) -> bool: ...

    @property
    def parallel(self) -> bool: ...

    def _delivering(
        self, deadline: Deadline | None = None, connected: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]: ...

    def _helper(self) -> Backend: ...

    def _wrap(self, email: Any, created: datetime | None = None, **kwargs: Any) -> bytes: ...

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]: ...

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome: ...


class Worker:
    """One backend, with its one connection, in one thread of a drain."""

    def __init__(self, backend: Backend, quota: Quota, report: Report, expired: datetime, deadline: Deadline) -> None:
        self.backend = backend
        self.queue = backend.que.without_expired() if backend.helping else backend.que
        self.quota = quota
        self.report = report
        #: A failed message that was created before is discarded.
        self.expired = expired
        self.deadline = deadline
        self.lease = conf.MAIL_QUEUE_LEASE

    def run(self, connected: Callable[[], None] = lambda: None) -> None:
        """Work until no message is left for this worker. Raises QueueUnavailable.

        ``connected`` is called when the backend has a connection, or has settled a message; not while a message is
        in hand that was in hand in a process that died: it may kill this one, too, and the less it takes along.
        """
        in_hand: Reservation | None = None

        def say_connected() -> None:
            if in_hand is not None and in_hand.deliveries == 1:
                connected()

        with self.backend._delivering(self.deadline, say_connected):
            in_hand = self._reserve()
            while in_hand is not None:
                in_hand = self._process(in_hand)
                say_connected()

    def _reserve(self) -> Reservation | None:
        if not self.quota.admit():
            return None
        return self._or_unused(_persist(lambda: self.queue.reserve(self.lease)))

    def _or_unused(self, reservation: Reservation | None) -> Reservation | None:
        """Leave it to the others to take one more when there is nothing for this worker."""
        if reservation is None:
            self.quota.put_back()
        return reservation

    def _process(self, reservation: Reservation) -> Reservation | None:
        """Deliver and settle one message, and take the next; put it back when this is interrupted."""
        self.deadline.start(self.lease / 2)
        settled = False
        try:
            following = self._open_and_deliver(reservation)
            settled = True
            return following
        finally:
            self.deadline.clear()
            if not settled:
                self.queue.release(reservation)

    def _open_and_deliver(self, reservation: Reservation) -> Reservation | None:
        if reservation.deliveries > HANDOUTS:
            return self._bury(reservation, f"it was in hand in {HANDOUTS} processes that died")
        try:
            envelope = loads(reservation.payload)
        except UnknownClass as error:
            return self._leave(reservation, error)
        except Unreadable as error:
            return self._bury(reservation, f"it is unreadable: {error}")
        fields = {"created": envelope.created, **envelope.extra}
        outcome = self._deliver(envelope, fields)
        if self.backend.unreachable and self.backend.helping:
            self._give_back(reservation)
            return None
        if outcome.sent:
            return self._finish(reservation, "sent")
        if not outcome.requeue:
            return self._finish(reservation, "discarded")
        return self._requeue(reservation, envelope, fields)

    def _deliver(self, envelope: Envelope, fields: dict[str, Any]) -> Outcome:
        """Ask the hook; an error of its own is a failure like any other."""
        try:
            return Outcome(*self.backend._send_queued_messages(envelope.email, self.expired, fields))
        except Exception as error:  # a site's hook may raise anything
            logger.exception("The hook _send_queued_messages() failed.")
            return self.backend._failed(envelope.email, self.expired, fields, error)

    # settling

    def _finish(self, reservation: Reservation, outcome: str) -> Reservation | None:
        """Take a message off the queue that was sent or discarded; take the next in the same round trip."""
        self.report.count(outcome)
        if self.quota.admit_at_once():
            settled, following = _persist(lambda: self.queue.ack_and_reserve(reservation, self.lease))
            following = self._or_unused(following)
        else:
            settled, following = _persist(lambda: self.queue.ack(reservation)), None
        self._note(settled, outcome)
        return following or self._reserve()

    def _requeue(self, reservation: Reservation, envelope: Envelope, fields: dict[str, Any]) -> Reservation | None:
        self.report.count("requeued")
        payload, delay = self._renewed(envelope, fields)
        self._note(_persist(lambda: self.queue.release(reservation, payload, delay)), "requeued")
        return None if self.backend.unreachable else self._reserve()

    def _renewed(self, envelope: Envelope, fields: dict[str, Any]) -> tuple[bytes | None, float]:
        """Serialise with what the hook left in the fields, and say when to try again.

        (None, 0), for the bytes as they were, when that fails.
        """
        try:
            return self.backend._wrap(envelope.email, **fields), _delay(fields)
        except Exception:  # a site's hook may put anything into the fields
            logger.exception("A message cannot be stored again as the hook left it; it is requeued as it was.")
            return None, 0

    def _bury(self, reservation: Reservation, reason: str) -> Reservation | None:
        self.report.count("buried")
        logger.error(
            "A payload of %d bytes is set aside in %s: %s", len(reservation.payload), self.queue.dead_name, reason
        )
        self._note(_persist(lambda: self.queue.bury(reservation)), "buried")
        return self._reserve()

    def _leave(self, reservation: Reservation, error: UnknownClass) -> Reservation | None:
        """Leave a message to its lease: another process may have the class that it needs."""
        if not self.queue.leases:
            return self._bury(reservation, f"it is unreadable: {error}")
        self.report.count("requeued")
        logger.warning("A message stays in the queue until its lease ends: %s", error)
        return self._reserve()

    def _give_back(self, reservation: Reservation) -> None:
        """A further connection is more than the server takes: leave the work to those who have one."""
        self._note(_persist(lambda: self.queue.release(reservation)), "given back")

    def _note(self, settled: bool, outcome: str) -> None:
        if not settled:
            logger.warning(
                "A message was %s after its lease of %s s had ended, or the queue's answer was lost: "
                "another drain may handle it as well.",
                outcome,
                self.lease,
            )


def _persist(step: Callable[[], T]) -> T:
    """Take a step with the queue, again for a while when the queue is unavailable."""
    for pause in PAUSES:
        try:
            return step()
        except QueueUnavailable as error:
            logger.warning("The queue is unavailable, trying again in %s s: %s", pause, error)
            time.sleep(pause)
    return step()


def _delay(fields: dict[str, Any]) -> float:
    """Tell in how many seconds to try again: as long as the message is old, between the setting and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    age = time.time() - created_epoch(fields["created"], fields)
    return min(max(shortest, age), max(shortest, LONGEST_DELAY))
