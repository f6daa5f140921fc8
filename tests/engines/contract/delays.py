"""Deferred messages: released with a delay, and due after it."""

from __future__ import annotations

import time

from .base import AFTER_SHORT, ENDINGS, LONG, SHORT, OpensQueues


class DelayContract(OpensQueues):
    """The promises about messages that are released with a delay."""

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
