"""One exchange: the messages that it hands out, and those that it settles in the same call."""

from __future__ import annotations

from mailqueue_backend.queues.base import EXCHANGE_BYTES, Exchange, Settlement

from .base import OpensQueues, payloads_of


class ExchangeContract(OpensQueues):
    """The promises of exchange() about handing out."""

    def test_the_oldest_are_handed_out_in_order(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d")
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=3).reservations
        self.assertEqual([(each.payload, each.deliveries) for each in reservations], [(b"a", 1), (b"b", 1), (b"c", 1)])
        self.assertEqual(len({each.receipt for each in reservations}), 3)
        self.assertEqual(list(consumer.held.values()), reservations)
        self.check_counts(waiting=1, reserved=3)

    def test_fewer_are_handed_out_when_fewer_are_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.assertEqual(payloads_of(self.consumer().exchange(wanted=3).reservations), [b"a", b"b"])

    def test_a_reserved_message_is_not_handed_out_again(self) -> None:
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

    def test_one_exchange_settles_and_hands_out(self) -> None:
        self.queue.write_many(b"a", b"b", b"c", b"d", b"e", b"f")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        answer = consumer.exchange([Settlement(a, "ack"), Settlement(b, "release"), Settlement(c, "bury")], 2)
        self.assertEqual(answer.settled, [True, True, True])
        self.assertEqual(payloads_of(answer.reservations), [b"d", b"e"])
        self.assertEqual(list(consumer.held.values()), answer.reservations)
        self.check_counts(waiting=2, reserved=2, dead=1)

    def test_settled_answers_for_each_settlement(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a, b, c = consumer.exchange(wanted=3).reservations
        self.settle(consumer, b, "ack")
        answer = consumer.exchange([Settlement(a, "ack"), Settlement(b, "ack"), Settlement(c, "release")])
        self.assertEqual(answer.settled, [True, False, True])
        self.check_counts(waiting=1)
