"""Settlements: acknowledge, release, bury, put back, close."""

from __future__ import annotations

from mailqueue_backend.queues.base import Settlement

from .base import ENDINGS, LONG, OpensQueues


class SettleContract(OpensQueues):
    """The promises of exchange() about settlements."""

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

    # ack

    def test_an_acknowledged_message_is_gone(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "ack"))
        self.check_counts()

    # release

    def test_a_released_message_goes_to_the_tail(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "release"))
        self.check_counts(waiting=3)
        self.assertEqual(self.queue.read_many(3), [b"b", b"c", b"a"])

    def test_several_messages_are_released_in_order(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=3).reservations
        consumer.exchange([Settlement(reservation, "release") for reservation in reservations])
        self.assertEqual(self.queue.read_many(4), [b"d", b"a", b"b", b"c"])

    def test_release_replaces_the_payload(self) -> None:
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

    # bury

    def test_a_buried_message_is_in_the_dead_queue_unchanged(self) -> None:
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

    def test_a_message_that_is_put_back_keeps_its_place_and_its_count(self) -> None:
        self.need("keeps_place", "counts_only_deaths")
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.assertTrue(self.settle(consumer, self.reserve(consumer), "put_back"))
        self.check_counts(waiting=3)
        reservation = self.reserve(consumer)
        self.assertEqual((reservation.payload, reservation.deliveries), (b"a", 1))
        self.settle(consumer, reservation, "put_back")
        self.assertEqual(self.queue.read_many(4), [b"a", b"b", b"c"])

    def test_several_messages_that_are_put_back_keep_their_order(self) -> None:
        self.need("keeps_place")
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        self.queue.write(b"e")
        consumer.exchange([Settlement(a, "release"), Settlement(b, "put_back"), Settlement(c, "put_back")])
        self.assertEqual(self.queue.read_many(6), [b"b", b"c", b"d", b"e", b"a"])

    # close

    def test_closing_puts_back_held_messages_in_order(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        with self.queue.consumer(LONG) as consumer:
            consumer.exchange(wanted=1)
            consumer.exchange(wanted=2)
        self.assertEqual(consumer.held, {})
        consumer.close()
        self.check_counts(waiting=4)
        expected = [b"a", b"b", b"c", b"d"] if self.queue.keeps_place else [b"d", b"a", b"b", b"c"]
        self.assertEqual(self.queue.read_many(5), expected)
