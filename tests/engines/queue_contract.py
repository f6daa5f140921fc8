"""Every promise of a mail queue (queues/base.py), stated once and run on each queue.

A queue is tested by a class that mixes QueueContract into a TestCase and says in ``make_queue(name)`` how to open
it, and TakersContract where a test is not itself in a transaction. What an engine cannot do, its abilities say.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Event
from types import FrameType
from typing import TYPE_CHECKING, Any
from uuid import uuid4

from django.db import connections
from django.test import tag

from mailqueue_backend import queues
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import (
    EXCHANGE_BYTES,
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
from tests.engines.takers import spawn, take_all

#: Seconds: a lease that no test outlives, one that ends at once, and the time after which it has ended.
LONG, SHORT, AFTER_SHORT = 60, 0.05, 0.1
#: The settlements that end a reservation at once.
ENDINGS: tuple[How, ...] = ("ack", "release", "bury", "put_back")

if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object


class OpensQueues(Base):
    """A queue of its own for each test, and what the tests do with it."""

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
        """Compare with counts(); all that waits is due unless the test says otherwise."""
        if self.queue.counts_exactly:
            expected = Counts(waiting, waiting if due is None else due, deferred, reserved, dead)
            self.assertEqual(self.queue.counts(), expected)

    def consumer(self, lease: float = LONG, queue: MessageQueue | None = None) -> Consumer:
        """Open a consumer that is closed when the test ends."""
        consumer = (self.queue if queue is None else queue).consumer(lease)
        self.addCleanup(consumer.close)
        return consumer

    def die(self, consumer: Consumer) -> None:
        """Let the consumer's process die: it never closes."""
        consumer.held.clear()
        consumer._pending = ""

    def reserve(self, consumer: Consumer | None = None) -> Reservation:
        """Reserve the one message that must be there."""
        (reservation,) = (consumer or self.consumer()).exchange(wanted=1).reservations
        return reservation

    def reserve_and_die(self, wanted: int = 1) -> list[Reservation]:
        """Reserve in a process that dies, and wait until the leases have ended."""
        self.need("leases")
        consumer = self.consumer(SHORT)
        reservations = consumer.exchange(wanted=wanted).reservations
        self.die(consumer)
        time.sleep(AFTER_SHORT)
        return reservations

    def settle(self, consumer: Consumer, reservation: Reservation, how: How, *more: Any) -> bool:
        """Settle one reservation; ``more``: payload and delay."""
        (settled,) = consumer.exchange([Settlement(reservation, how, *more)]).settled
        return settled

    def lose_answers(self, consumer: Consumer, amount: int = 1, carried_out: bool = True) -> None:
        """Break the connection during the next exchanges: the engine has carried them out, or has not."""
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


class SurfaceContract(OpensQueues):
    """The promises of queue-front's surface."""

    def test_first_in_is_first_out(self) -> None:
        self.queue.write(b"1")
        self.queue.write_many(b"2", b"3", b"4")
        self.queue.write(b"5")
        self.assertEqual([self.queue.read() for _ in range(5)], [b"1", b"2", b"3", b"4", b"5"])

    def test_writing_returns_true_for_each_payload(self) -> None:
        self.assertIs(self.queue.write(b"a"), True)
        self.assertEqual(self.queue.write_many(b"b", b"c"), [True, True])

    def test_writing_nothing_changes_nothing(self) -> None:
        self.assertEqual(self.queue.write_many(), [])
        self.assertEqual(len(self.queue), 0)

    def test_an_empty_queue_has_nothing_to_read_or_reserve(self) -> None:
        self.assertIsNone(self.queue.read())
        self.assertEqual(self.queue.read_many(3), [])
        self.assertEqual(self.consumer().exchange(wanted=3), Exchange([], []))

    def test_payloads_come_back_unchanged(self) -> None:
        consumer = self.consumer()
        for payload in (bytes(range(256)), b"", b"\0", "ü\n".encode("utf-16"), os.urandom(3_000_000)):
            with self.subTest(length=len(payload)):
                self.queue.write(payload)
                reservation = self.reserve(consumer)
                self.assertTrue(reservation.payload == payload)
                self.settle(consumer, reservation, "release")
                self.assertTrue(self.queue.read() == payload)

    def test_a_payload_is_bytes(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.assertIs(type(self.queue.read()), bytes)
        self.assertIs(type(self.reserve().payload), bytes)

    def test_read_many_returns_as_many_as_wanted_or_there_are(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertEqual(self.queue.read_many(2), [b"a", b"b"])
        self.assertEqual(self.queue.read_many(2), [b"c"])

    def test_length_counts_what_waits(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertEqual(len(self.queue), 3)
        self.queue.read()
        self.reserve()
        self.assertEqual(len(self.queue), 1)

    def test_queues_of_other_names_are_apart(self) -> None:
        other = self.make_queue(f"{self.queue.name}_2")
        self.queue.write(b"a")
        self.assertEqual(len(other), 0)
        self.assertIsNone(other.read())
        self.assertEqual(self.consumer(queue=other).exchange(wanted=1).reservations, [])

    def test_objects_of_one_name_are_one_queue(self) -> None:
        twin = self.consumer(queue=self.make_queue(self.queue.name))
        self.queue.write_many(b"a", b"b")
        reservation = self.reserve(twin)
        self.check_counts(waiting=1, reserved=1)
        self.assertTrue(self.settle(twin, reservation, "ack"))
        self.check_counts(waiting=1)

    def test_a_batch_is_stored_whole_or_not_at_all(self) -> None:
        self.need("atomic_batches")
        with self.assertRaises(Exception):  # noqa: B017, each driver has its own
            self.queue.write_many(b"a" * 2_000_000, b"b", object())  # type: ignore[arg-type]
        self.assertEqual(len(self.queue), 0)


class ReserveContract(OpensQueues):
    """The promises of exchange() about what it hands out, and of leases."""

    def test_the_oldest_are_handed_out_in_order(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=3).reservations
        self.assertEqual([(each.payload, each.deliveries) for each in reservations], [(b"a", 1), (b"b", 1), (b"c", 1)])
        self.assertEqual(len({each.receipt for each in reservations}), 3)
        self.assertEqual(list(consumer.held.values()), reservations)
        self.check_counts(waiting=1, reserved=3)

    def test_fewer_are_handed_out_when_there_are_fewer(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.assertEqual(payloads_of(self.consumer().exchange(wanted=3).reservations), [b"a", b"b"])

    def test_what_is_reserved_is_nobody_elses(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        self.reserve(consumer)
        self.assertEqual(consumer.exchange(wanted=1), Exchange([], []))
        self.assertEqual(self.consumer().exchange(wanted=1), Exchange([], []))
        self.assertIsNone(self.queue.read())
        self.assertEqual(len(self.queue), 0)
        self.check_counts(reserved=1)

    def test_a_group_ends_with_the_payload_that_fills_it(self) -> None:
        payload = b"x" * (EXCHANGE_BYTES * 2 // 5)
        self.queue.write_many(*[payload] * 4)
        consumer = self.consumer()
        self.assertEqual(len(consumer.exchange(wanted=4).reservations), 3)
        self.assertEqual(len(consumer.exchange(wanted=4).reservations), 1)

    def test_an_ended_lease_is_handed_out_again_and_counted(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_die()
        (second,) = self.reserve_and_die()
        third = self.reserve()
        self.assertEqual((second.payload, second.deliveries), (b"a", 2))
        self.assertEqual((third.payload, third.deliveries), (b"a", 3))

    def test_an_ended_lease_waits_again(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_die()
        self.assertEqual(len(self.queue), 1)
        self.check_counts(waiting=1)

    def test_an_extended_lease_does_not_end_at_its_first_end(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        consumer = self.consumer(lease=0.6)
        reservation = self.reserve(consumer)
        time.sleep(0.35)
        consumer.extend([reservation])
        time.sleep(0.35)
        self.assertEqual(self.consumer().exchange(wanted=1), Exchange([], []))
        self.assertTrue(self.settle(consumer, reservation, "ack"))

    def test_a_lost_lease_cannot_be_extended(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        slow, other = self.consumer(SHORT), self.consumer()
        stale = self.reserve(slow)
        time.sleep(AFTER_SHORT)
        current = self.reserve(other)
        slow.extend([stale])
        self.assertFalse(self.settle(slow, stale, "ack"))
        self.assertTrue(self.settle(other, current, "ack"))


class SettleContract(OpensQueues):
    """The promises of exchange() about settlements."""

    def test_one_exchange_settles_and_hands_out(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d", b"e", b"f")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        answer = consumer.exchange([Settlement(a, "ack"), Settlement(b, "release"), Settlement(c, "bury")], 2)
        self.assertEqual(answer.settled, [True, True, True])
        self.assertEqual(payloads_of(answer.reservations), [b"d", b"e"])
        self.assertEqual(list(consumer.held.values()), answer.reservations)
        self.check_counts(waiting=2, reserved=2, dead=1)

    def test_settled_tells_which_of_several_took_place(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        self.settle(consumer, b, "ack")
        answer = consumer.exchange([Settlement(a, "ack"), Settlement(b, "ack"), Settlement(c, "release")])
        self.assertEqual(answer.settled, [True, False, True])
        self.check_counts(waiting=1)

    def test_settling_twice_is_refused_and_changes_nothing(self) -> None:
        consumer = self.consumer()
        for first in ENDINGS:
            for second in ENDINGS:
                with self.subTest(f"{first}, then {second}"):
                    self.empty()
                    self.queue.write(b"a")
                    reservation = self.reserve(consumer)
                    self.assertTrue(self.settle(consumer, reservation, first))
                    before = self.queue.counts()
                    self.assertFalse(self.settle(consumer, reservation, second))
                    self.assertEqual(self.queue.counts(), before)

    def test_a_lost_lease_is_refused_and_changes_nothing(self) -> None:
        self.need("leases")
        slow, other = self.consumer(SHORT), self.consumer()
        for how in ENDINGS:
            with self.subTest(how):
                self.queue.write(b"a")
                stale = self.reserve(slow)
                time.sleep(AFTER_SHORT)
                current = self.reserve(other)
                before = self.queue.counts()
                self.assertFalse(self.settle(slow, stale, how))
                self.assertEqual(self.queue.counts(), before)
                self.assertTrue(self.settle(other, current, "ack"))

    def test_a_message_that_was_read_after_its_lease_cannot_be_settled(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        slow = self.consumer(SHORT)
        stale = self.reserve(slow)
        time.sleep(AFTER_SHORT)
        self.assertEqual(self.queue.read_many(2), [b"a"])
        self.assertFalse(self.settle(slow, stale, "ack"))

    # ack

    def test_acked_is_gone(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "ack"))
        self.check_counts()

    # release

    def test_released_goes_to_the_tail(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "release"))
        self.check_counts(waiting=3)
        self.assertEqual(self.queue.read_many(3), [b"b", b"c", b"a"])

    def test_several_are_released_in_order(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=3).reservations
        consumer.exchange([Settlement(reservation, "release") for reservation in reservations])
        self.assertEqual(self.queue.read_many(4), [b"d", b"a", b"b", b"c"])

    def test_released_with_new_bytes_forgets_the_old(self) -> None:
        consumer = self.consumer()
        for payload in (b"new", b""):
            with self.subTest(payload):
                self.queue.write(b"old")
                self.settle(consumer, self.reserve(consumer), "release", payload)
                self.assertEqual(self.queue.read_many(2), [payload])

    def test_release_starts_the_count_of_deliveries_again(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_die()
        consumer = self.consumer()
        second = self.reserve(consumer)
        self.settle(consumer, second, "release")
        self.assertEqual((second.deliveries, self.reserve(consumer).deliveries), (2, 1))

    def test_a_deferred_message_is_not_due_before_its_time(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release", None, LONG)
        self.assertEqual(consumer.exchange(wanted=1).reservations, [])
        self.check_counts(waiting=1, due=0, deferred=1)
        self.assertEqual(len(self.queue), 1)

    def test_a_deferred_message_is_due_after_its_time(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release", b"b", SHORT)
        time.sleep(AFTER_SHORT)
        self.check_counts(waiting=1)
        reservation = self.reserve(consumer)
        self.assertEqual((reservation.payload, reservation.deliveries), (b"b", 1))

    def test_read_returns_deferred_messages_after_the_due_ones(self) -> None:
        self.need("delays")
        self.queue.write_many(b"deferred", b"due")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release", None, LONG)
        self.assertEqual(self.queue.read_many(3), [b"due", b"deferred"])

    # bury

    def test_buried_is_in_the_dead_queue_unchanged(self) -> None:
        payload = bytes(range(256))
        self.queue.write(payload)
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "bury"))
        self.check_counts(dead=1)
        self.assertEqual(consumer.exchange(wanted=1).reservations, [])
        self.assertEqual(self.dead.read(), payload)

    def test_the_dead_queue_is_an_ordinary_queue(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        consumer.exchange([Settlement(each, "bury") for each in consumer.exchange(wanted=2).reservations])
        self.dead.write(b"c")
        self.assertEqual(len(self.dead), 3)
        dead = self.consumer(queue=self.dead)
        reservation = self.reserve(dead)
        self.assertEqual((reservation.payload, reservation.deliveries), (b"a", 1))
        self.assertTrue(self.settle(dead, reservation, "ack"))
        self.assertEqual(self.dead.read_many(3), [b"b", b"c"])

    # put_back

    def test_put_back_is_in_its_place_with_its_count(self) -> None:
        self.need("keeps_place", "counts_only_deaths")
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "put_back"))
        self.check_counts(waiting=3)
        reservation = self.reserve(consumer)
        self.assertEqual((reservation.payload, reservation.deliveries), (b"a", 1))
        self.settle(consumer, reservation, "put_back")
        self.assertEqual(self.queue.read_many(4), [b"a", b"b", b"c"])

    def test_several_that_are_put_back_keep_their_order(self) -> None:
        self.need("keeps_place")
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        self.queue.write(b"e")
        consumer.exchange([Settlement(a, "release"), Settlement(b, "put_back"), Settlement(c, "put_back")])
        self.assertEqual(self.queue.read_many(6), [b"b", b"c", b"d", b"e", b"a"])

    # leave

    def test_left_stays_reserved_until_its_lease_ends(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        with self.queue.consumer(lease=0.4) as consumer:
            self.assertTrue(self.settle(consumer, self.reserve(consumer), "leave"))
            self.assertEqual(consumer.held, {})
        self.check_counts(reserved=1)
        time.sleep(0.5)
        self.assertEqual(self.reserve().deliveries, 2)

    # close

    def test_closing_puts_back_in_order_what_is_held(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        with self.queue.consumer(LONG) as consumer:
            consumer.exchange(wanted=1)
            consumer.exchange(wanted=2)
        self.assertEqual(consumer.held, {})
        consumer.close()
        self.check_counts(waiting=4)
        expected = [b"a", b"b", b"c", b"d"] if self.queue.keeps_place else [b"d", b"a", b"b", b"c"]
        self.assertEqual(self.queue.read_many(5), expected)


class SuspectContract(OpensQueues):
    """The promises about what was in the hand of a process that died."""

    def test_suspects_come_first_and_one_by_one(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.reserve_and_die(wanted=2)
        consumer = self.consumer()
        handed_out = [consumer.exchange(wanted=3).reservations]
        for _ in range(3):
            handed_out.append(consumer.exchange(acks(handed_out[-1]), 3).reservations)
        self.assertEqual([payloads_of(group) for group in handed_out], [[b"a"], [b"b"], [b"c"], []])
        self.assertEqual([group[0].deliveries for group in handed_out[:3]], [2, 2, 1])

    def test_a_suspect_comes_before_older_messages(self) -> None:
        self.need("keeps_place")
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a = self.reserve(consumer)
        self.reserve_and_die()
        answer = consumer.exchange([Settlement(a, "put_back")], 3)
        self.assertEqual(payloads_of(answer.reservations), [b"b"])
        answer = consumer.exchange(acks(answer.reservations), 3)
        self.assertEqual(payloads_of(answer.reservations), [b"a", b"c"])

    def test_a_suspect_is_passed_over_while_something_is_held(self) -> None:
        self.need("leases")
        self.queue.write_many(b"a", b"b", b"c", b"d", b"e")
        dying, consumer = self.consumer(SHORT), self.consumer()
        self.reserve(dying)
        self.die(dying)
        b = self.reserve(consumer)
        time.sleep(AFTER_SHORT)
        answer = consumer.exchange(wanted=2)
        self.assertEqual((payloads_of(answer.reservations), answer.suspect_waiting), ([b"c", b"d"], True))
        answer = consumer.exchange(acks([b, *answer.reservations]), 2)
        self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True, True, True], [b"a"]))
        answer = consumer.exchange(acks(answer.reservations), 2)
        self.assertEqual((payloads_of(answer.reservations), answer.suspect_waiting), ([b"e"], False))

    def test_nothing_waits_where_no_suspect_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        for _ in range(3):
            self.assertFalse(consumer.exchange(wanted=1).suspect_waiting)

    def test_a_suspect_that_is_put_back_stays_one(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.reserve_and_die()
        consumer = self.consumer()
        for _ in range(2):
            (suspect,) = consumer.exchange(wanted=2).reservations
            self.assertEqual((suspect.payload, suspect.deliveries), (b"a", 2))
            self.settle(consumer, suspect, "put_back")
            self.check_counts(waiting=3)
        self.assertEqual(sorted(self.queue.read_many(4)), [b"a", b"b", b"c"])


class RepeatContract(OpensQueues):
    """The promises of an exchange that is asked again because its answer was lost."""

    def test_it_is_not_done_twice(self) -> None:
        for how in ENDINGS:
            with self.subTest(how):
                self.empty()
                self.queue.write_many(b"a", b"b", b"c", b"d")
                with self.queue.consumer(LONG) as consumer:
                    settlements = [Settlement(self.reserve(consumer), how)]
                    self.lose_answers(consumer, 2)
                    for _ in range(2):
                        with self.assertRaises(QueueUnavailable):
                            consumer.exchange(settlements, 2)
                    answer = consumer.exchange(settlements, 2)
                    again = how == "put_back" and self.queue.keeps_place
                    self.assertEqual(payloads_of(answer.reservations), [b"a", b"b"] if again else [b"b", b"c"])
                    self.assertEqual([each.deliveries for each in answer.reservations], [1, 1])
                    self.assertEqual(answer.settled, [True])
                    waiting = {"ack": 1, "release": 2, "bury": 1, "put_back": 2}[how]
                    self.check_counts(waiting, reserved=2, dead=how == "bury")
                    self.assertEqual(consumer.exchange(acks(answer.reservations)).settled, [True, True])
                self.check_counts(waiting, dead=how == "bury")

    def test_the_next_exchange_is_a_new_one(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.lose_answers(consumer)
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(wanted=1)
        self.assertEqual(payloads_of(consumer.exchange(wanted=1).reservations), [b"a"])
        self.assertEqual(payloads_of(consumer.exchange(wanted=1).reservations), [b"b"])

    def test_closing_puts_back_what_was_reserved_unseen(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d", b"e", b"f")
        with self.queue.consumer(LONG) as consumer:
            a, b, _c = consumer.exchange(wanted=3).reservations
            self.lose_answers(consumer)
            with self.assertRaises(QueueUnavailable):
                consumer.exchange([Settlement(a, "ack"), Settlement(b, "release")], 2)
        self.check_counts(waiting=5)
        left = []
        with self.queue.consumer(LONG) as other:
            while reservations := other.exchange(acks(left[-1:]), 1).reservations:
                left += reservations
        self.assertEqual(sorted(payloads_of(left)), [b"b", b"c", b"d", b"e", b"f"])
        if self.queue.counts_only_deaths:
            self.assertEqual({each.deliveries for each in left}, {1})
        if self.queue.keeps_place:
            self.assertEqual(payloads_of(left), [b"c", b"d", b"e", b"f", b"b"])

    def test_it_is_done_where_it_was_not(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        self.lose_answers(consumer, carried_out=False)
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(settlements, 1)
        answer = consumer.exchange(settlements, 1)
        self.assertEqual(answer.settled, [True])
        # An engine may not be able to know that it was not carried out; then the next one hands out.
        reservations = answer.reservations or consumer.exchange(wanted=1).reservations
        self.assertEqual([(each.payload, each.deliveries) for each in reservations], [(b"b", 1)])
        self.check_counts(waiting=1, reserved=1)

    def test_a_lost_lease_is_still_refused(self) -> None:
        self.need("leases")
        slow, other = self.consumer(SHORT), self.consumer()
        for acked in (False, True):
            with self.subTest(acked=acked):
                self.queue.write(b"a")
                stale = self.reserve(slow)
                time.sleep(AFTER_SHORT)
                current = self.reserve(other)
                if acked:
                    self.settle(other, current, "ack")
                self.lose_answers(slow)
                with self.assertRaises(QueueUnavailable):
                    slow.exchange(acks([stale]))
                self.assertEqual(slow.exchange(acks([stale])).settled, [False])
                self.assertEqual(self.settle(other, current, "ack"), not acked)

    def test_a_suspect_is_handed_out_once(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        consumer = self.consumer()
        self.lose_answers(consumer)
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(wanted=2)
        (suspect,) = consumer.exchange(wanted=2).reservations
        self.assertEqual((suspect.payload, suspect.deliveries), (b"a", 2))


class BrowseContract(OpensQueues):
    """The promises of browse() and take()."""

    def test_each_state_is_listed_in_pages(self) -> None:
        self.need("browsable")
        expected = self.fill_all_states()
        before = self.queue.counts()
        for state, payloads in expected.items():
            with self.subTest(state):
                entries = self.pages(state)
                self.assertEqual(payloads_of(entries), payloads)
                self.assertEqual({entry.state for entry in entries}, {state})
                self.assertEqual({entry.deliveries for entry in entries}, {int(state == "reserved")})
        self.assertEqual(self.queue.counts(), before)
        self.assertEqual(self.queue.read_many(5), expected["due"])

    def fill_all_states(self) -> dict[State, list[bytes]]:
        """Have messages in each state, and return their payloads in the order in which they are listed."""
        self.queue.write_many(*[b"%02d" % number + bytes(range(256)) for number in range(14)])
        consumer = self.consumer()
        taken = consumer.exchange(wanted=9).reservations
        expected: dict[State, list[bytes]] = {}
        if self.queue.delays:
            for delay, reservation in enumerate(taken[:3]):
                self.settle(consumer, reservation, "release", None, LONG + delay)
            expected["deferred"] = payloads_of(taken[:3])
        else:
            consumer.exchange(acks(taken[:3]))
        consumer.exchange([Settlement(reservation, "bury") for reservation in taken[3:6]])
        due = [b"%02d" % number + bytes(range(256)) for number in range(9, 14)]
        return expected | {"dead": payloads_of(taken[3:6]), "reserved": payloads_of(taken[6:]), "due": due}

    def test_an_entry_tells_when_it_is_due(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release", None, LONG)
        due = self.entry(b"a", "deferred").due
        if due is not None:
            self.assertAlmostEqual(due, time.time() + LONG, delta=10)

    def test_a_state_without_messages_has_no_page(self) -> None:
        self.need("browsable")
        for state in ("due", "deferred", "reserved", "dead"):
            self.assertEqual(self.queue.browse(state, 2), [])  # type: ignore[arg-type]

    def test_an_ended_lease_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        self.assertEqual(sorted(payloads_of(self.pages("due"))), [b"a", b"b"])
        self.assertEqual((self.entry(b"a").deliveries, self.entry(b"b").deliveries), (1, 0))
        self.assertEqual(self.queue.browse("reserved", 2), [])

    def test_what_stays_is_listed_whatever_others_do_between_pages(self) -> None:
        payloads = [b"%02d" % number for number in range(30)]
        self.queue.write_many(*payloads)
        amounts = [3, 1, 0] * 5

        def take_from_the_head_and_write_at_the_tail() -> None:
            if amounts:
                self.queue.read_many(amounts.pop(0))
                self.queue.write(b"late")

        listed = payloads_of(self.pages("due", take_from_the_head_and_write_at_the_tail))
        stayed = set(payloads) & set(self.queue.read_many(100))
        self.assertGreater(len(stayed), 5)
        self.assertLessEqual(stayed, set(listed))

    def test_identical_messages_are_each_listed_and_taken(self) -> None:
        self.queue.write_many(*[b"same"] * 5, b"other")
        entries = self.pages("due")
        self.assertEqual(payloads_of(entries)[-1], b"other")
        self.assertGreaterEqual(payloads_of(entries).count(b"same"), 5)
        consumer = self.consumer()
        taken = [reservation for entry in entries if (reservation := consumer.take(entry))]
        self.assertEqual(sorted(payloads_of(taken)), [b"other"] + [b"same"] * 5)
        self.check_counts(reserved=6)

    def test_exactly_that_message_is_taken_and_can_be_settled(self) -> None:
        consumer = self.consumer()
        left = {"ack": [b"a", b"c"], "release": [b"a", b"c", b"b"], "bury": [b"a", b"c"]}
        for how in ENDINGS:
            with self.subTest(how):
                self.queue.write_many(b"a", b"b", b"c")
                taken = consumer.take(self.entry(b"b"))
                assert taken is not None
                self.assertEqual((taken.payload, taken.deliveries), (b"b", 1))
                self.assertEqual(consumer.held, {taken.receipt: taken})
                self.check_counts(waiting=2, reserved=1)
                self.assertTrue(self.settle(consumer, taken, how))
                self.assertFalse(self.settle(consumer, taken, how))
                # To find the place again is more than a list can.
                payloads = self.queue.read_many(4)
                self.assertEqual(payloads if how in left else sorted(payloads), left.get(how, [b"a", b"b", b"c"]))
                self.assertEqual(self.dead.read_many(2), [b"b"] if how == "bury" else [])

    def test_closing_puts_back_what_was_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        with self.queue.consumer(LONG) as consumer:
            consumer.take(self.entry(b"b"))
        self.check_counts(waiting=2)
        self.assertEqual({self.reserve().deliveries, self.reserve().deliveries}, {1})

    def test_what_somebody_has_reserved_is_not_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"a")
        self.reserve()
        consumer = self.consumer()
        for seen in (entry, self.entry(b"a", "reserved")):
            self.assertIsNone(consumer.take(seen))
        self.assertEqual(consumer.held, {})
        self.check_counts(waiting=1, reserved=1)

    def test_what_is_gone_is_not_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"a")
        self.queue.read()
        self.assertIsNone(self.consumer().take(entry))
        self.check_counts(waiting=1)

    def test_a_deferred_message_can_be_taken(self) -> None:
        self.need("delays")
        consumer = self.consumer()
        for how in ENDINGS:
            with self.subTest(how):
                self.empty()
                self.queue.write_many(b"a")
                self.settle(consumer, self.reserve(consumer), "release", None, LONG)
                taken = consumer.take(self.entry(b"a", "deferred"))
                assert taken is not None
                self.assertEqual((taken.payload, taken.deliveries), (b"a", 1))
                self.check_counts(reserved=1)
                self.assertTrue(self.settle(consumer, taken, how))
                counts = self.queue.counts()
                self.assertEqual(counts.waiting, how in ("release", "put_back"))
                self.assertEqual((counts.reserved, counts.dead), (0, how == "bury"))

    def test_an_ended_lease_can_be_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        consumer = self.consumer()
        taken = consumer.take(self.entry(b"a"))
        assert taken is not None
        self.assertEqual((taken.payload, taken.deliveries), (b"a", 2))
        self.assertTrue(self.settle(consumer, taken, "ack"))
        self.check_counts(waiting=1)

    def test_a_dead_message_can_be_taken_from_the_dead_queue(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        consumer.exchange([Settlement(each, "bury") for each in consumer.exchange(wanted=2).reservations])
        dead = self.consumer(queue=self.dead)
        taken = dead.take(self.entry(b"b", "dead"))
        assert taken is not None
        self.assertEqual((taken.payload, taken.deliveries), (b"b", 1))
        self.assertTrue(self.settle(dead, taken, "ack"))
        self.check_counts(dead=1)


class QueueContract(SurfaceContract, ReserveContract, SettleContract, SuspectContract, RepeatContract, BrowseContract):
    """All promises to one taker."""


class Interrupter:
    """A context in which KeyboardInterrupt is raised, and caught, at the n-th line in the queues' files."""

    folders: tuple[str, ...] = tuple(queues.__path__)

    def __init__(self, lines: int) -> None:
        self.lines = self.left = lines
        self.where = ""

    def __enter__(self) -> None:
        self.tracer_before = sys.gettrace()
        sys.settrace(self.trace)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.folders):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self.trace

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        sys.settrace(self.tracer_before)
        return isinstance(error, KeyboardInterrupt)

    def __repr__(self) -> str:
        return f"interrupted at {self.where or 'no line'}, the {self.lines}th"


class TakersContract(OpensQueues):
    """The promises to several takers at once, and after an interrupt: each needs commits of its own."""

    #: Why the queue cannot be reached from another process, if so.
    one_process_only = ""

    def fill(self, amount: int) -> list[bytes]:
        payloads = [b"%04d" % number for number in range(amount)]
        self.queue.write_many(*payloads)
        return payloads

    # threads

    def test_threads_that_reserve_get_each_message_once(self) -> None:
        payloads = self.fill(160)
        self.assertEqual(self.taken_by_threads(take_all), payloads)
        self.check_counts()

    def test_threads_that_read_get_each_message_once(self) -> None:
        payloads = self.fill(80)
        self.assertEqual(self.taken_by_threads(lambda queue: queue.read_many(len(payloads))), payloads)

    def taken_by_threads(self, take: Callable[[MessageQueue], list[bytes]], threads: int = 8) -> list[bytes]:
        def take_and_close() -> list[bytes]:
            try:
                return take(self.queue)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(threads) as pool:
            takers = [pool.submit(take_and_close) for _ in range(threads)]
        return sorted(payload for taker in takers for payload in taker.result())

    def test_what_stays_is_listed_while_others_take_and_write(self) -> None:
        self.need("browsable")
        payloads = self.fill(60)
        done = Event()

        def take_from_the_head() -> None:
            with self.queue.consumer(LONG) as consumer:
                for _ in range(20):
                    consumer.exchange(acks(consumer.exchange(wanted=1).reservations))

        def write_at_the_tail() -> None:
            for _ in range(200):
                if not done.is_set():
                    self.queue.write(b"late")

        def run_and_close(work: Callable[[], None]) -> None:
            try:
                work()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(run_and_close, work) for work in (take_from_the_head, write_at_the_tail)]
            listed = payloads_of(self.pages("due"))
            done.set()
        for other in others:
            other.result()
        self.assertLessEqual(set(payloads[20:]), set(listed))

    # processes

    @tag("slow")
    def test_processes_that_reserve_get_each_message_once(self) -> None:
        if self.one_process_only:
            self.skipTest(self.one_process_only)
        self.check_processes()

    def check_processes(self, journal_mode: str = "") -> None:
        payloads = self.fill(200)
        self.assertEqual(self.taken_by_processes(journal_mode), payloads)
        self.check_counts()

    def taken_by_processes(self, journal_mode: str, processes: int = 4) -> list[bytes]:
        takers = [spawn(self.queue.name, journal_mode) for _ in range(processes)]
        self.addCleanup(lambda: [taker.kill() for taker in takers if taker.poll() is None])
        for taker in takers:
            taker.stdout.readline()
        for taker in takers:
            taker.stdin.write("go\n")
            taker.stdin.flush()
        taken = []
        for taker in takers:
            output, errors = taker.communicate(timeout=60)
            self.assertEqual((taker.returncode, errors), (0, ""))
            taken += [bytes.fromhex(line) for line in output.split()]
        return sorted(taken)

    # interrupts

    @tag("slow")
    def test_an_interrupted_exchange_loses_and_doubles_nothing(self) -> None:
        def exchange(consumer: Consumer, entry: Entry | None) -> None:
            a, b = consumer.held.values()
            consumer.exchange([Settlement(a, "ack"), Settlement(b, "release")], 2)

        self.check_interrupts(exchange, may_be_gone=b"a")

    @tag("slow")
    def test_an_interrupted_burial_loses_and_doubles_nothing(self) -> None:
        def bury(consumer: Consumer, entry: Entry | None) -> None:
            consumer.exchange([Settlement(reservation, "bury") for reservation in consumer.held.values()])

        self.check_interrupts(bury)

    @tag("slow")
    def test_an_interrupted_close_can_be_closed(self) -> None:
        self.check_interrupts(lambda consumer, entry: consumer.close())

    @tag("slow")
    def test_an_interrupted_take_loses_and_doubles_nothing(self) -> None:
        self.need("browsable")
        self.check_interrupts(lambda consumer, entry: consumer.take(entry))

    def check_interrupts(
        self, action: Callable[[Consumer, Any], object], may_be_gone: bytes = b"", payloads: bytes = b"abcde"
    ) -> None:
        """Interrupt the action at one line after the other; each time, close and compare what is left.

        Its consumer holds the first two of five messages; it also gets the entry of the fourth, where there are any.
        """
        written = [payloads[index : index + 1] for index in range(len(payloads))]
        interrupter = Interrupter(0)
        while interrupter.left <= 0:
            interrupter = Interrupter(interrupter.lines + 1)
            self.empty()
            self.queue.write_many(*written)
            consumer = self.queue.consumer(LONG)
            consumer.exchange(wanted=2)
            entry = self.entry(written[3]) if self.queue.browsable else None
            with interrupter:
                action(consumer, entry)
            consumer.close()
            self.assertEqual((consumer.held, consumer._pending), ({}, ""), interrupter)
            self.assertEqual(self.queue.counts().reserved, 0, interrupter)
            left = sorted(self.queue.read_many(10) + self.dead.read_many(10))
            self.assertIn(left, (written, [payload for payload in written if payload != may_be_gone]), interrupter)
        self.assertGreater(interrupter.lines, 1)
