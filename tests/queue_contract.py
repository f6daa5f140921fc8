"""Every promise of a mail queue (queues/base.py), stated once and run on each queue.

A queue is tested by a class that mixes QueueContract into a TestCase and says in ``make_queue(name)`` how to open
it, and TakersContract where several threads and processes can reach the same queue. What an engine cannot do, its
abilities ``leases``, ``delays`` and ``atomic_batches`` say.
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING
from uuid import uuid4

from django.db import connections
from django.test import tag

from mailqueue_backend.queues.base import Counts, MessageQueue, Reservation
from tests import services
from tests.takers import spawn, take_all

#: Seconds: a lease that no test outlives, one that ends at once, and the time after which it has ended.
LONG, SHORT, AFTER_SHORT = 60, 0.05, 0.1

if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object


class OpensQueues(Base):
    """What all contracts stand on: a queue of its own for each test."""

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

    def need(self, ability: str) -> None:
        if not getattr(self.queue, ability):
            self.skipTest(f"{type(self.queue).__name__} has no {ability}")

    def reserve(self, lease: float = LONG) -> Reservation:
        """Reserve what must be there."""
        reservation = self.queue.reserve(lease)
        assert reservation is not None, "nothing to reserve"
        return reservation

    def reserve_and_let_expire(self) -> Reservation:
        self.need("leases")
        reservation = self.reserve(SHORT)
        time.sleep(AFTER_SHORT)
        return reservation


class QueueContract(OpensQueues):
    """The promises to one taker."""

    # queue-front's surface

    def test_first_in_is_first_out(self) -> None:
        self.queue.write(b"1")
        self.queue.write_many(b"2", b"3", b"4")
        self.queue.write(b"5")
        self.assertEqual([self.queue.read() for _ in range(5)], [b"1", b"2", b"3", b"4", b"5"])

    def test_writing_gives_true_for_each_payload(self) -> None:
        self.assertIs(self.queue.write(b"a"), True)
        self.assertEqual(self.queue.write_many(b"b", b"c"), [True, True])

    def test_writing_nothing_changes_nothing(self) -> None:
        self.assertEqual(self.queue.write_many(), [])
        self.assertEqual(len(self.queue), 0)

    def test_an_empty_queue_reads_none(self) -> None:
        self.assertIsNone(self.queue.read())
        self.assertEqual(self.queue.read_many(3), [])
        self.assertIsNone(self.queue.reserve(LONG))

    def test_payloads_come_back_unchanged(self) -> None:
        for payload in (bytes(range(256)), b"", b"\0", "ü\n".encode("utf-16"), os.urandom(3_000_000)):
            with self.subTest(length=len(payload)):
                self.queue.write(payload)
                reservation = self.reserve()
                self.assertTrue(reservation.payload == payload)
                self.queue.release(reservation)
                self.assertTrue(self.queue.read() == payload)

    def test_a_payload_is_bytes(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.assertIs(type(self.queue.read()), bytes)
        self.assertIs(type(self.reserve().payload), bytes)

    def test_read_many_gives_as_many_as_wanted_or_there_are(self) -> None:
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
        self.assertIsNone(other.reserve(LONG))

    def test_objects_of_one_name_are_one_queue(self) -> None:
        twin = self.make_queue(self.queue.name)
        self.queue.write_many(b"a", b"b")
        reservation = twin.reserve(LONG)
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=1, deferred=0, reserved=1, dead=0))
        self.assertTrue(self.queue.ack(reservation))
        self.assertFalse(twin.ack(reservation))

    def test_a_batch_is_stored_whole_or_not_at_all(self) -> None:
        self.need("atomic_batches")
        with self.assertRaises(Exception):  # noqa: B017, each driver has its own
            self.queue.write_many(b"a" * 2_000_000, b"b", object())  # type: ignore[arg-type]
        self.assertEqual(len(self.queue), 0)

    # reserve

    def test_the_oldest_is_reserved_first(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertEqual([self.reserve().payload for _ in range(3)], [b"a", b"b", b"c"])
        self.assertIsNone(self.queue.reserve(LONG))

    def test_what_is_reserved_is_nobody_elses(self) -> None:
        self.queue.write(b"a")
        self.assertEqual(self.reserve().deliveries, 1)
        self.assertIsNone(self.queue.reserve(LONG))
        self.assertIsNone(self.queue.read())
        self.assertEqual(len(self.queue), 0)
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=1, dead=0))

    def test_an_expired_lease_is_handed_out_again_and_counted(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_let_expire()
        second = self.reserve_and_let_expire()
        third = self.reserve()
        self.assertEqual((second.payload, second.deliveries), (b"a", 2))
        self.assertEqual((third.payload, third.deliveries), (b"a", 3))

    def test_an_expired_lease_can_be_passed_over(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.reserve_and_let_expire()
        others = self.queue.without_expired()
        if others is self.queue:
            self.skipTest(f"{type(self.queue).__name__} does not tell expired leases from new messages")
        second = others.reserve(LONG)
        self.assertEqual(second.payload, b"b")
        acked, third = others.ack_and_reserve(second, LONG)
        self.assertEqual((acked, third.payload, others.reserve(LONG)), (True, b"c", None))
        self.assertEqual((self.reserve().payload, self.queue.counts().reserved), (b"a", 2))

    def test_an_expired_lease_waits_again(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_let_expire()
        self.assertEqual(len(self.queue), 1)
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=1, deferred=0, reserved=0, dead=0))

    def test_an_expired_lease_can_be_read(self) -> None:
        self.queue.write(b"a")
        stale = self.reserve_and_let_expire()
        self.assertEqual(self.queue.read(), b"a")
        self.assertIsNone(self.queue.read())
        self.assertFalse(self.queue.ack(stale))

    def test_a_stale_receipt_is_refused_and_changes_nothing(self) -> None:
        for settle in (self.queue.ack, self.queue.release, self.queue.bury):
            with self.subTest(settle.__name__):
                self.queue.write(b"a")
                stale = self.reserve_and_let_expire()
                current = self.reserve()
                before = self.queue.counts()
                self.assertFalse(settle(stale))
                self.assertEqual(self.queue.counts(), before)
                self.assertTrue(self.queue.ack(current))

    # ack

    def test_acked_is_gone(self) -> None:
        self.queue.write(b"a")
        self.assertTrue(self.queue.ack(self.reserve()))
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 0))

    def test_settling_twice_is_refused_and_changes_nothing(self) -> None:
        settlements = (self.queue.ack, self.queue.release, self.queue.bury)
        for first in settlements:
            for second in settlements:
                with self.subTest(f"{first.__name__}, then {second.__name__}"):
                    self.empty()
                    self.queue.write(b"a")
                    reservation = self.reserve()
                    self.assertTrue(first(reservation))
                    before = self.queue.counts()
                    self.assertFalse(second(reservation))
                    self.assertEqual(self.queue.counts(), before)

    def test_ack_and_reserve_does_both(self) -> None:
        self.queue.write_many(b"a", b"b")
        acked, following = self.queue.ack_and_reserve(self.reserve(), LONG)
        self.assertTrue(acked)
        self.assertEqual((following.payload, following.deliveries), (b"b", 1))
        self.assertEqual(self.queue.ack_and_reserve(following, LONG), (True, None))
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 0))

    def test_ack_and_reserve_reserves_after_a_refused_ack(self) -> None:
        self.queue.write_many(b"a", b"b")
        settled = self.reserve()
        self.queue.ack(settled)
        acked, following = self.queue.ack_and_reserve(settled, LONG)
        self.assertFalse(acked)
        self.assertEqual(following.payload, b"b")

    # release

    def test_released_goes_to_the_tail(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertTrue(self.queue.release(self.reserve()))
        self.assertEqual(self.queue.counts(), Counts(waiting=3, due=3, deferred=0, reserved=0, dead=0))
        self.assertEqual(self.queue.read_many(3), [b"b", b"c", b"a"])

    def test_released_with_new_bytes_forgets_the_old(self) -> None:
        for payload in (b"new", b""):
            with self.subTest(payload):
                self.queue.write(b"old")
                self.queue.release(self.reserve(), payload)
                self.assertEqual(self.queue.read_many(2), [payload])

    def test_release_starts_the_count_of_deliveries_again(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_let_expire()
        second = self.reserve()
        self.queue.release(second)
        self.assertEqual((second.deliveries, self.reserve().deliveries), (2, 1))

    def test_a_deferred_message_is_not_due_before_its_time(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        self.queue.release(self.reserve(), delay=LONG)
        self.assertIsNone(self.queue.reserve(LONG))
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=0, deferred=1, reserved=0, dead=0))
        self.assertEqual(len(self.queue), 1)

    def test_a_deferred_message_is_due_after_its_time(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        self.queue.release(self.reserve(), b"b", delay=SHORT)
        time.sleep(AFTER_SHORT)
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=1, deferred=0, reserved=0, dead=0))
        self.assertEqual((self.reserve().payload), b"b")

    def test_read_gives_deferred_messages_after_the_due_ones(self) -> None:
        self.need("delays")
        self.queue.write_many(b"deferred", b"due")
        self.queue.release(self.reserve(), delay=LONG)
        self.assertEqual(self.queue.read_many(3), [b"due", b"deferred"])

    # bury

    def test_buried_is_in_the_dead_queue_unchanged(self) -> None:
        payload = bytes(range(256))
        self.queue.write(payload)
        self.assertTrue(self.queue.bury(self.reserve()))
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=0, dead=1))
        self.assertIsNone(self.queue.reserve(LONG))
        self.assertEqual(self.dead.read(), payload)

    def test_the_dead_queue_is_an_ordinary_queue(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.queue.bury(self.reserve())
        self.queue.bury(self.reserve())
        self.dead.write(b"c")
        self.assertEqual(len(self.dead), 3)
        reservation = self.dead.reserve(LONG)
        self.assertEqual((reservation.payload, reservation.deliveries), (b"a", 1))
        self.assertTrue(self.dead.ack(reservation))
        self.assertEqual(self.dead.read_many(3), [b"b", b"c"])


class TakersContract(OpensQueues):
    """The promises to several takers at once."""

    #: Why the queue cannot be reached from another process, if so.
    one_process_only = ""

    def fill(self, amount: int) -> list[bytes]:
        payloads = [b"%04d" % number for number in range(amount)]
        self.queue.write_many(*payloads)
        return payloads

    def test_threads_that_reserve_get_each_message_once(self) -> None:
        payloads = self.fill(160)
        self.assertEqual(self.taken_by_threads(take_all), payloads)
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 0))

    def test_threads_that_read_get_each_message_once(self) -> None:
        payloads = self.fill(80)
        self.assertEqual(self.taken_by_threads(lambda queue: queue.read_many(len(payloads))), payloads)

    def taken_by_threads(self, take, threads: int = 8) -> list[bytes]:
        def take_and_close() -> list[bytes]:
            try:
                return take(self.queue)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(threads) as pool:
            takers = [pool.submit(take_and_close) for _ in range(threads)]
        return sorted(payload for taker in takers for payload in taker.result())

    @tag("slow")
    def test_processes_that_reserve_get_each_message_once(self) -> None:
        if self.one_process_only:
            self.skipTest(self.one_process_only)
        self.check_processes()

    def check_processes(self, journal_mode: str = "") -> None:
        payloads = self.fill(200)
        self.assertEqual(self.taken_by_processes(journal_mode), payloads)
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 0))

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
