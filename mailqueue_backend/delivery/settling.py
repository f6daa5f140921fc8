"""A worker's dealings with the queue: take a message, and say what has become of it.

A queue that is unavailable is asked again for a while: a database that restarts must not cost a second copy.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..logs import get_logger
from ..queues.base import MessageQueue, Reservation
from .outcomes import Report
from .retrying import persist

logger = get_logger("delivery")


class Settler:
    """Takes messages from a queue for a lease, settles them, and counts. Any method may raise QueueUnavailable."""

    def __init__(self, queue: MessageQueue, report: Report, lease: float, alone: bool) -> None:
        self.queue = queue
        self.report = report
        self.lease = lease
        self.alone = alone

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """Let the queue hold the next message for a worker who is alone."""
        whole = self.queue
        if self.alone:
            self.queue = whole.prefetching()
        try:
            yield
        finally:
            persist(self.queue.stop_prefetching)
            self.queue = whole

    def reserve(self) -> Reservation | None:
        """Take the next message; None when nothing is due."""
        return persist(lambda: self.queue.reserve(self.lease))

    def finish(self, reservation: Reservation, outcome: str) -> None:
        """Forget a message that was sent or discarded."""
        self.report.count(outcome)
        self._note(persist(lambda: self.queue.ack(reservation)), outcome)

    def finish_and_reserve(self, reservation: Reservation, outcome: str) -> Reservation | None:
        """Do both in one round trip."""
        self.report.count(outcome)
        settled, following = persist(lambda: self.queue.ack_and_reserve(reservation, self.lease))
        self._note(settled, outcome)
        return following

    def requeue(self, reservation: Reservation, payload: bytes | None, delay: float) -> None:
        """Put a message back for another try."""
        self.report.count("requeued")
        self._note(persist(lambda: self.queue.release(reservation, payload, delay)), "requeued")

    def give_back(self, reservation: Reservation) -> None:
        """Put a message back that was not tried."""
        self._note(persist(lambda: self.queue.release(reservation)), "given back")

    def bury(self, reservation: Reservation, reason: str) -> None:
        """Set a payload aside."""
        self.report.count("buried")
        size, where = len(reservation.payload), self.queue.dead_name
        logger.error("A payload of %d bytes is set aside in %s: %s", size, where, reason)
        self._note(persist(lambda: self.queue.bury(reservation)), "buried")

    def leave(self, reservation: Reservation, reason: object) -> None:
        """Leave a message to its lease: another process may be able to read it. Else bury it."""
        if not self.queue.leases:
            self.bury(reservation, f"it is unreadable: {reason}")
            return
        self.report.count("requeued")
        logger.warning("A message stays in the queue until its lease ends: %s", reason)

    def _note(self, settled: bool, outcome: str) -> None:
        if not settled:
            logger.warning(
                "A message was %s after its lease of %s s had ended, or the queue's answer was lost: "
                "another drain may handle it as well.",
                outcome,
                self.lease,
            )
