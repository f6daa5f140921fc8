"""Deferred messages: released with a delay, and due after it."""

from __future__ import annotations

import time
from unittest import mock

from .base import AFTER_SHORT, ENDINGS, LONG, SHORT, OpensQueues, payloads_of


class DelayContract(OpensQueues):
    """The promises about messages that are written or released with a delay."""

    def test_a_message_is_written_with_a_delay(self) -> None:
        self.need("delays")
        self.assertEqual(self.queue.write_many(b"later", b"now", b"soon", delays=[LONG, 0, SHORT]), [True] * 3)
        self.check_counts(waiting=3, due=1, deferred=2)
        consumer = self.consumer()
        self.assertEqual(payloads_of(consumer.exchange(wanted=3).reservations), [b"now"])
        time.sleep(AFTER_SHORT)
        self.assertEqual(self.reserve(consumer)[::2], (b"soon", 1))
        self.assertEqual(consumer.exchange(wanted=1).reservations, [])
        later = self.entry(b"later", "deferred").due
        if later is not None:
            self.assertAlmostEqual(later, time.time() + LONG, delta=10)

    def test_many_messages_with_one_delay_keep_their_order(self) -> None:
        self.need("delays")
        payloads = [b"%04d" % number for number in range(2500)]
        self.queue.write_many(*payloads, delays=[SHORT] * len(payloads))
        time.sleep(AFTER_SHORT)
        self.check_counts(waiting=len(payloads))
        self.assertEqual(payloads_of(self.consumer().exchange(wanted=20).reservations), payloads[:20])

    def test_a_batch_with_delays_is_stored_whole_or_not_at_all(self) -> None:
        self.need("delays", "atomic_batches")
        with self.assertRaises(Exception):  # noqa: B017, each driver has its own
            self.queue.write_many(b"a", b"b", object(), delays=[LONG, 0, 0])  # type: ignore[arg-type]
        self.check_counts()

    def test_a_delay_that_is_too_long_is_explained(self) -> None:
        if not self.queue.delays:
            self.assertIn("cannot hold a message", self.queue.explain_delay(1))
            with self.assertRaises(NotImplementedError):
                self.queue.write_many(b"a", delays=[1])
            return
        self.assertEqual(self.queue.explain_delay(1e10), "")
        with mock.patch.object(type(self.queue), "longest_delay", 900):
            self.assertEqual(self.queue.explain_delay(900), "")
            self.assertIn("at most 900 s, not 1000 s", self.queue.explain_delay(1000))

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

    def test_an_entry_shows_when_it_is_due(self) -> None:
        self.need("delays")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release", None, LONG)
        due = self.entry(b"a", "deferred").due
        if due is not None:
            self.assertAlmostEqual(due, time.time() + LONG, delta=10)

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
