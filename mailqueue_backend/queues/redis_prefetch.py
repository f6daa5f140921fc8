"""The Redis queue for a taker who is alone: the next message comes over the wire while one is delivered.

What Redis is asked when a message is begun, it has long answered when that is done, so that nobody waits for it.
Takers who are several do not wait either: one goes on while another does.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from .base import MessageQueue, Reservation
from .redis_client import driver
from .redis_receipts import Receipt, as_reservation, is_settled, new_receipt, receipt_of

if TYPE_CHECKING:
    from .redis import Queue

#: Of its lease, the next message must have so much left when its turn comes; else it is taken anew.
FRESH = 0.75


class Question(NamedTuple):
    """What Redis is asked: for a message, and to forget the one that is ``held``, if any."""

    held: Receipt | None
    receipt: Receipt
    words: list[str | int]


class PrefetchingQueue(MessageQueue):
    """Holds the next message beside the one in hand, unless that was in the hand of a process that died.

    The ack of ack_and_reserve() is sent at once, but what it has brought is told by the next one. Not for threads.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.name)
        self._queue = queue
        self._line = queue.line()
        self._question: Question | None = None
        self._next: Reservation | None = None
        #: What the last ack has brought.
        self._acked = True

    def close(self) -> None:
        """Put the next message back."""
        try:
            self._read_answer()
            self._put_back()
        finally:
            self._line.close()

    def reserve(self, lease: float) -> Reservation | None:
        """Give the next message."""
        self._prefetched(lease)
        if self._next is None:
            self._next = self._queue.reserve(lease)
        return self._hand_out(lease)

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both."""
        self._prefetched(lease)
        if self._next is None:
            acked, self._next = self._queue.ack_and_reserve(reservation, lease)
            return acked, self._hand_out(lease)
        if self._next.deliveries > 1:
            return self._queue.ack(reservation), self._hand_out(lease)
        return self._acked, self._hand_out(lease, receipt_of(reservation))

    def ack(self, reservation: Reservation) -> bool:
        """Forget it."""
        return self._queue.ack(reservation)

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Put it at the tail."""
        return self._queue.release(reservation, payload, delay)

    def bury(self, reservation: Reservation) -> bool:
        """Move it to the dead queue."""
        return self._queue.bury(reservation)

    def _hand_out(self, lease: float, held: Receipt | None = None) -> Reservation | None:
        """Give the next message, and ask for another one."""
        following, self._next = self._next, None
        if following is not None and following.deliveries == 1:
            receipt = new_receipt(lease)
            self._question = Question(held, receipt, self._queue.question(receipt, lease, held))
            self._line.send(self._question.words)
        return following

    def _prefetched(self, lease: float) -> None:
        """Have the next message at hand, if there is one whose lease is not half over."""
        self._read_answer()
        if self._next is not None and receipt_of(self._next).until - monotonic() < FRESH * lease:
            self._put_back()

    def _read_answer(self) -> None:
        """Learn what has come of the question, if one is open. When it raises QueueUnavailable, it still is."""
        if self._question is None:
            return
        held, receipt, words = self._question
        try:
            answer, again = self._line.read(), False
        except driver().RedisError:
            answer, again = self._queue.run(*words)[0], True
        found, taken = (1, answer) if held is None else answer
        self._question = None
        self._acked = held is None or is_settled(held, found, again)
        self._next = as_reservation(receipt, taken)

    def _put_back(self) -> None:
        if self._next is not None:
            self._queue.put_back(self._next)
            self._next = None
