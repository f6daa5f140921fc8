"""Repeated exchanges: the first answer was lost."""

from __future__ import annotations

import time

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Settlement

from .base import AFTER_SHORT, ENDINGS, LONG, SHORT, OpensQueues, acks, payloads_of


class RepeatContract(OpensQueues):
    """The promises of an exchange that is repeated because its answer was lost."""

    def test_a_repeated_exchange_is_carried_out_once(self) -> None:
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

    def test_the_exchange_after_a_repeated_one_is_new(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.lose_answers(consumer)
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(wanted=1)
        self.assertEqual(payloads_of(consumer.exchange(wanted=1).reservations), [b"a"])
        self.assertEqual(payloads_of(consumer.exchange(wanted=1).reservations), [b"b"])

    def test_closing_puts_back_reservations_whose_answer_was_lost(self) -> None:
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

    def test_an_exchange_that_was_not_carried_out_is_carried_out_when_repeated(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        self.lose_answers(consumer, carried_out=False)
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(settlements, 1)
        answer = consumer.exchange(settlements, 1)
        self.assertEqual(answer.settled, [True])
        # An engine that cannot know this hands nothing out until the next exchange.
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
