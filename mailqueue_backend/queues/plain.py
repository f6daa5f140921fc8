"""Any queue-front queue, of which only ``read()``, ``write()`` and ``len()`` are needed.

Such a queue hands a payload out by removing it. Until it is settled it exists in this process alone, so a
process that is killed takes the one in its hand with it. Everything less brutal puts it back.
"""

from __future__ import annotations

from typing import Any
from uuid import uuid4

from ..errors import QueueUnavailable
from .base import Counts, MessageQueue, Reservation
from .unavailable import unavailable_as_in_queue_front

#: How often a queue is read that says it is not empty and hands nothing out.
ATTEMPTS = 3
#: Receipts in this process' hands, by class and name of the queue. Adding to a set and removing is atomic.
_IN_HAND: dict[tuple[type, str], set[object]] = {}


class PlainQueue(MessageQueue):
    """A queue-front queue behind the contract: reserve = read, ack = nothing, release = write."""

    leases = False
    delays = False
    atomic_batches = False

    def __init__(self, queue: Any) -> None:
        super().__init__(queue.name)
        self._queue = queue
        self._in_hand = _IN_HAND.setdefault((type(queue), queue.name), set())

    @property
    def parallel(self) -> bool:
        """Not so: a module that was written for one drain may share a socket that knows no threads."""
        return False

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads; in one call where the module can, else one after the other."""
        if len(payloads) < 2 or not self._write_together(payloads):
            self._write_singly(payloads)
        return [True] * len(payloads)

    def _write_together(self, payloads: tuple[bytes, ...]) -> bool:
        """Try the module's own write_many(); False when it has none."""
        write_many = getattr(self._queue, "write_many", None)
        if write_many is None:
            return False
        try:
            _check_stored(*(write_many(*payloads) or ()))
        except NotImplementedError:
            return False
        except Exception as error:
            raise self._unavailable(f"may not have stored all of {len(payloads)} messages", error) from error
        return True

    def _write_singly(self, payloads: tuple[bytes, ...]) -> None:
        for stored, payload in enumerate(payloads):
            try:
                _check_stored(self._queue.write(payload))
            except Exception as error:
                raise self._unavailable(f"has stored {stored} of {len(payloads)} messages", error) from error

    def read(self) -> bytes | None:
        """Take one out; an empty queue may answer None, or raise IndexError or QueueException."""
        attempts = ATTEMPTS
        while True:
            attempts -= 1
            try:
                payload: bytes | None = self._queue.read()
            except IndexError:
                return None
            except Exception as error:
                # QueueException: empty or broken? A broken queue cannot be counted, or refuses again.
                again = _is_queue_exception(error)
                if again and not len(self):
                    return None
                if not (again and attempts):
                    raise self._unavailable("cannot be read", error) from error
            else:
                return payload

    def __len__(self) -> int:
        """Count what the module counts."""
        try:
            return len(self._queue)
        except Exception as error:
            raise self._unavailable("cannot be counted", error) from error

    def counts(self) -> Counts:
        """Count; reserved are those in the hands of this process."""
        waiting = len(self)
        return Counts(waiting, due=waiting, deferred=0, reserved=len(self._in_hand), dead=len(self._dead()))

    def reserve(self, lease: float) -> Reservation | None:
        """Take one out and remember that it is in hand; the lease has no end."""
        payload = self.read()
        if payload is None:
            return None
        reservation = Reservation(payload, receipt=uuid4(), deliveries=1)
        self._in_hand.add(reservation.receipt)
        return reservation

    def ack(self, reservation: Reservation) -> bool:
        """Forget that it is in hand."""
        try:
            self._in_hand.remove(reservation.receipt)
        except KeyError:
            return False
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
        moved = False
        try:
            moved = target.write(payload)
        finally:
            # Also when a KeyboardInterrupt comes in between: rather twice than never.
            if not moved:
                self._in_hand.add(reservation.receipt)
        return moved

    def _dead(self) -> PlainQueue:
        try:
            return type(self)(type(self._queue)(self.dead_name))
        except Exception as error:
            raise self._unavailable("has no dead queue", error) from error

    def _unavailable(self, what: str, cause: object) -> QueueUnavailable:
        return unavailable_as_in_queue_front()(
            f"The queue {self.name} ({type(self._queue).__module__}) {what}: {cause}"
        )


def _check_stored(*answers: object) -> None:
    if any(answer is False for answer in answers):
        raise ValueError("the queue refused one")


def _is_queue_exception(error: Exception) -> bool:
    from queue_front import QueueException

    return isinstance(error, QueueException)
