"""Leases: how long a reservation lasts, and what happens when it ends."""

from __future__ import annotations

import time

from mailqueue_backend.queues.base import Exchange

from .base import AFTER_SHORT, ENDINGS, SHORT, OpensQueues


class LeaseContract(OpensQueues):
    """The promises about leases that end, are extended and are lost."""

    def test_an_ended_lease_is_handed_out_again_and_counted(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_die()
        (second,) = self.reserve_and_die()
        third = self.reserve()
        self.assertEqual((second.payload, second.deliveries), (b"a", 2))
        self.assertEqual((third.payload, third.deliveries), (b"a", 3))

    def test_a_message_waits_again_after_its_lease(self) -> None:
        self.queue.write(b"a")
        self.reserve_and_die()
        self.assertEqual(len(self.queue), 1)
        self.check_counts(waiting=1)

    def test_an_extended_lease_outlasts_the_original_one(self) -> None:
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

    def test_settling_a_lost_lease_is_refused_and_changes_nothing(self) -> None:
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

    def test_a_message_that_is_left_stays_reserved_until_its_lease_ends(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        with self.queue.consumer(lease=0.4) as consumer:
            self.assertTrue(self.settle(consumer, self.reserve(consumer), "leave"))
            self.assertEqual(consumer.held, {})
        self.check_counts(reserved=1)
        time.sleep(0.5)
        self.assertEqual(self.reserve().deliveries, 2)
