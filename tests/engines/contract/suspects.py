"""Suspects: messages that a process held when it died."""

from __future__ import annotations

import time

from mailqueue_backend.queues.base import Settlement

from .base import AFTER_SHORT, SHORT, OpensQueues, acks, payloads_of


class SuspectContract(OpensQueues):
    """The promises about messages that a process held when it died."""

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

    def test_a_suspect_is_not_handed_out_while_the_consumer_holds_other_messages(self) -> None:
        self.need("leases")
        self.queue.write_many(b"a", b"b", b"c", b"d", b"e")
        dying, consumer = self.consumer(), self.consumer()
        a, b = self.reserve(dying), self.reserve(consumer)
        dying.lease = SHORT
        dying.extend([a])
        self.die(dying)
        time.sleep(AFTER_SHORT)
        answer = consumer.exchange(wanted=2)
        self.assertEqual((payloads_of(answer.reservations), answer.suspect_waiting), ([b"c", b"d"], True))
        answer = consumer.exchange(acks([b, *answer.reservations]), 2)
        self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True, True, True], [b"a"]))
        answer = consumer.exchange(acks(answer.reservations), 2)
        self.assertEqual((payloads_of(answer.reservations), answer.suspect_waiting), ([b"e"], False))

    def test_suspect_waiting_is_false_when_no_suspect_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        for _ in range(3):
            self.assertFalse(consumer.exchange(wanted=1).suspect_waiting)

    def test_a_suspect_that_is_put_back_stays_a_suspect(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.reserve_and_die()
        consumer = self.consumer()
        for _ in range(2):
            (suspect,) = consumer.exchange(wanted=2).reservations
            self.assertEqual((suspect.payload, suspect.deliveries), (b"a", 2))
            self.settle(consumer, suspect, "put_back")
            self.check_counts(waiting=3)
        self.assertEqual(sorted(self.queue.read_many(4)), [b"a", b"b", b"c"])
