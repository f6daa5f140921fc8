"""The base class of the contract's tests: a separate queue for each test, and the steps that the tests share."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import (
    Consumer,
    Counts,
    Entry,
    Exchange,
    How,
    MessageQueue,
    Reservation,
    Settlement,
    State,
)
from tests import services

#: Seconds: a lease that outlasts any test, a lease that ends almost at once, and the wait after which it has ended.
LONG, SHORT, AFTER_SHORT = 60, 0.05, 0.1
#: The settlements that end a reservation immediately.
ENDINGS: tuple[How, ...] = ("ack", "release", "bury", "put_back")


if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object


class OpensQueues(Base):
    """Open a separate queue for each test."""

    def make_queue(self, name: str) -> MessageQueue:
        """Open the queue of this name."""
        raise NotImplementedError

    def setUp(self) -> None:
        super().setUp()
        self.queue = self.make_queue(f"{services.PREFIX}_{uuid4().hex[:8]}")
        self.dead = self.make_queue(self.queue.dead_name)
        self.addCleanup(self.empty)

    def empty(self) -> None:
        for queue in (self.queue, self.dead):
            queue.read_many(10_000)

    def need(self, *abilities: str) -> None:
        for ability in abilities:
            if not getattr(self.queue, ability):
                self.skipTest(f"{type(self.queue).__name__} has no {ability}")

    def check_counts(
        self, waiting: int = 0, due: int | None = None, deferred: int = 0, reserved: int = 0, dead: int = 0
    ) -> None:
        """Compare with counts(); ``due`` defaults to ``waiting``."""
        if self.queue.counts_exactly:
            expected = Counts(waiting, waiting if due is None else due, deferred, reserved, dead)
            self.assertEqual(self.queue.counts(), expected)

    def consumer(self, lease: float = LONG, queue: MessageQueue | None = None) -> Consumer:
        """Open a consumer that is closed when the test ends."""
        consumer = (self.queue if queue is None else queue).consumer(lease)
        self.addCleanup(consumer.close)
        return consumer

    def die(self, consumer: Consumer) -> None:
        """Act as if the consumer's process had died: make close() put nothing back."""
        consumer.held.clear()
        consumer._pending = ""

    def reserve(self, consumer: Consumer | None = None) -> Reservation:
        """Reserve exactly one message; fail if none is due."""
        (reservation,) = (consumer or self.consumer()).exchange(wanted=1).reservations
        return reservation

    def reserve_and_die(self, wanted: int = 1) -> list[Reservation]:
        """Reserve, die, and wait until the leases have ended."""
        self.need("leases")
        consumer = self.consumer(SHORT)
        reservations = consumer.exchange(wanted=wanted).reservations
        self.die(consumer)
        time.sleep(AFTER_SHORT)
        return reservations

    def settle(self, consumer: Consumer, reservation: Reservation, how: How, *more: Any) -> bool:
        """Settle one reservation; ``more`` is the payload and the delay."""
        (settled,) = consumer.exchange([Settlement(reservation, how, *more)]).settled
        return settled

    def lose_answers(self, consumer: Consumer, amount: int = 1, carried_out: bool = True) -> None:
        """Make the next exchanges raise; ``carried_out`` says whether the engine carries them out."""
        exchange = consumer._exchange
        lost: list[bool] = []

        def lose(*arguments: Any) -> Exchange:
            if len(lost) == amount:
                return exchange(*arguments)
            lost.append(carried_out)
            if carried_out:
                exchange(*arguments)
            raise QueueUnavailable("The answer was lost")

        consumer._exchange = lose  # type: ignore[method-assign]

    def entry(self, payload: bytes, state: State = "due") -> Entry:
        """Find a message by browsing."""
        self.need("browsable")
        return next(entry for entry in self.queue.browse(state, 100) if entry.payload == payload)

    def pages(self, state: State, between: Callable[[], object] = lambda: None) -> list[Entry]:
        """Browse in pages of two; call ``between`` after each."""
        self.need("browsable")
        entries: list[Entry] = []
        while page := self.queue.browse(state, 2, entries[-1] if entries else None):
            self.assertLessEqual(len(page), 2)
            entries += page
            self.assertLess(len(entries), 1000, "browsing does not end")
            between()
        return entries


def payloads_of(messages: Sequence[Reservation] | Sequence[Entry]) -> list[bytes]:
    return [message.payload for message in messages]


def acks(reservations: Sequence[Reservation]) -> list[Settlement]:
    return [Settlement(reservation, "ack") for reservation in reservations]
