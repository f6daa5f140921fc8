"""Any queue-front queue, of which only ``read()``, ``write()`` and ``len()`` are needed.

Such a queue hands a payload out by removing it. Until it is settled it exists in this process alone, so a
process that is killed takes the one in its hand with it. Everything less brutal puts it back.
"""

from __future__ import annotations

from threading import Lock
from typing import Any
from uuid import uuid4

from ..errors import QueueUnavailable
from .base import Counts, MessageQueue, Reservation
from .unavailable import unavailable_as_in_queue_front


class PlainQueue(MessageQueue):
    """A queue-front queue behind the contract: reserve = read, ack = nothing, release = write."""

    leases = False
    delays = False
    atomic_batches = False

    def __init__(self, queue: Any) -> None:
        super().__init__(queue.name)
        self._queue = queue
        self._lock = Lock()
        self._in_hand: set[object] = set()

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads; in one call where the module can, else one after the other."""
        stored = 0
        try:
            if len(payloads) > 1 and self._write_together(payloads):
                return [True] * len(payloads)
            for payload in payloads:
                if self._queue.write(payload) is False:
                    raise ValueError("the queue refused the next one")
                stored += 1
        except Exception as error:
            raise self._unavailable(f"has stored {stored} of {len(payloads)} messages", error) from error
        return [True] * len(payloads)

    def _write_together(self, payloads: tuple[bytes, ...]) -> bool:
        """Try the module's own write_many(), which not every module has; False when it has not."""
        try:
            self._queue.write_many(*payloads)
        except (AttributeError, NotImplementedError):
            return False
        return True

    def read(self) -> bytes | None:
        """Take one out; an empty queue may answer None, or raise IndexError or QueueException."""
        try:
            payload: bytes | None = self._queue.read()
        except IndexError:
            return None
        except Exception as error:
            if _is_queue_exception(error) and not len(self):
                return None
            raise self._unavailable("cannot be read", error) from error
        return payload

    def __len__(self) -> int:
        """Count what the module counts."""
        try:
            return len(self._queue)
        except Exception as error:
            raise self._unavailable("cannot be counted", error) from error

    def counts(self) -> Counts:
        """Count; reserved are those in the hands of this object."""
        waiting = len(self)
        return Counts(waiting, due=waiting, deferred=0, reserved=len(self._in_hand), dead=len(self._dead()))

    def reserve(self, lease: float) -> Reservation | None:
        """Take one out and remember that it is in hand; the lease has no end."""
        payload = self.read()
        if payload is None:
            return None
        reservation = Reservation(payload, receipt=uuid4(), deliveries=1)
        with self._lock:
            self._in_hand.add(reservation.receipt)
        return reservation

    def ack(self, reservation: Reservation) -> bool:
        """Forget that it is in hand."""
        with self._lock:
            if reservation.receipt not in self._in_hand:
                return False
            self._in_hand.remove(reservation.receipt)
        return True

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Write it back; it stays in hand when that fails."""
        return self._move(reservation, self, reservation.payload if payload is None else payload)

    def bury(self, reservation: Reservation) -> bool:
        """Write it to the dead queue; it stays in hand when that fails."""
        return self._move(reservation, self._dead(), reservation.payload)

    def _move(self, reservation: Reservation, target: MessageQueue, payload: bytes) -> bool:
        if not self.ack(reservation):
            return False
        try:
            return target.write(payload)
        except QueueUnavailable:
            with self._lock:
                self._in_hand.add(reservation.receipt)
            raise

    def _dead(self) -> PlainQueue:
        return type(self)(type(self._queue)(self.dead_name))

    def _unavailable(self, what: str, cause: object) -> QueueUnavailable:
        return unavailable_as_in_queue_front()(
            f"The queue {self.name} ({type(self._queue).__module__}) {what}: {cause}"
        )


def _is_queue_exception(error: Exception) -> bool:
    from queue_front import QueueException

    return isinstance(error, QueueException)
