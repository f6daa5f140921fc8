"""The Redis queue for a taker who is alone: the next message comes over the wire while one is delivered.

What Redis is asked when a message is begun, it has long answered when that is done, so that nobody waits for it.
Takers who are several do not wait either: one goes on while another does.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING, NamedTuple

from ..logs import get_logger
from .base import MessageQueue, Reservation
from .redis_client import driver
from .redis_receipts import Receipt, as_reservation, is_settled, new_receipt, receipt_of

if TYPE_CHECKING:
    from .redis import Queue

logger = get_logger("delivery")

#: Of its lease, the next message must have so much left when its turn comes, else it is taken anew: a taker must have
#: the time that it believes to have. It also makes sure that an ack that waits for its turn is in time.
FRESH = 0.75


class Question(NamedTuple):
    """What Redis is asked: for a message, and to forget the one that is ``held``, if any."""

    held: Receipt | None
    receipt: Receipt
    words: list[str | int]


class PrefetchingQueue(MessageQueue):
    """Takes messages from a queue, and settles them. It does nothing else, and is not for threads.

    It holds the next message beside the one in hand, unless that was in the hand of a process that died. The ack of
    ack_and_reserve() is sent but not waited for, where there is a next message: it is True, and the log has the truth.
    """

    def __init__(self, queue: Queue) -> None:
        super().__init__(queue.name)
        self._queue = queue
        self._line = queue.line()
        self._question: Question | None = None
        #: The next message; after an interrupt also the one that was to be handed out.
        self._beside: list[Reservation] = []

    def stop_prefetching(self) -> None:
        """Put the next message back to where it was."""
        try:
            self._read_answer()
            while self._beside:
                self._queue.put_back(self._beside[-1])
                self._beside.pop()
        finally:
            self._line.close()

    def reserve(self, lease: float) -> Reservation | None:
        """Give the next message."""
        if self._next(lease) is None:
            self._note(self._queue.reserve(lease))
        return self._hand_out(lease)

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both."""
        following = self._next(lease)
        if following is None:
            acked, following = self._queue.ack_and_reserve(reservation, lease)
            self._note(following)
        elif following.deliveries > 1:
            acked = self._queue.ack(reservation)
        else:
            return True, self._hand_out(lease, receipt_of(reservation))
        return acked, self._hand_out(lease)

    def ack(self, reservation: Reservation) -> bool:
        """Forget it."""
        return self._queue.ack(reservation)

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Put it at the tail."""
        return self._queue.release(reservation, payload, delay)

    def bury(self, reservation: Reservation) -> bool:
        """Move it to the dead queue."""
        return self._queue.bury(reservation)

    def _note(self, reservation: Reservation | None) -> None:
        if reservation is not None:
            self._beside.append(reservation)

    def _next(self, lease: float) -> Reservation | None:
        """Give the next message if it is there, and its lease is fresh."""
        self._read_answer()
        if self._beside and receipt_of(self._beside[0]).until - monotonic() < FRESH * lease:
            self._queue.put_back(self._beside[0])
            self._beside.pop(0)
        return self._beside[0] if self._beside else None

    def _hand_out(self, lease: float, held: Receipt | None = None) -> Reservation | None:
        """Give the next message, and ask for another one."""
        if not self._beside:
            return None
        if self._beside[0].deliveries == 1:
            receipt = new_receipt(lease)
            self._question = Question(held, receipt, self._queue.question(receipt, lease, held))
            self._line.send(self._question.words)
        return self._beside.pop(0)

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
        self._note(as_reservation(receipt, taken))
        self._question = None
        if held is not None and not is_settled(held, found, again):
            logger.warning("A message was settled after its lease had ended: another drain may handle it as well.")
