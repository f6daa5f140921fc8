"""The Redis queue when an answer, a connection or its payloads are lost."""

from __future__ import annotations

import time
from unittest import mock

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Counts, Settlement
from tests.engines.redis_cases import RedisTestCase


class LostAnswerTests(RedisTestCase):
    """A command is carried out, and the connection breaks before its answer arrives."""

    def setUp(self) -> None:
        super().setUp()
        # This option makes redis-py repeat commands; the queue must override it.
        self.go_through_a_proxy("?retry_on_timeout=1")

    def test_a_write_raises_and_is_not_stored_twice(self) -> None:
        self.proxy.lose = b"RPUSH"
        with self.assertRaisesRegex(QueueUnavailable, self.proxy.address):
            self.queue.write(b"one")
        self.assertEqual(self.the_list(), [b"one"])
        self.queue.write(b"two")
        self.assertEqual(self.the_list(), [b"one", b"two"])

    def test_an_exchange_gets_the_same_answer_again(self) -> None:
        self.queue.write_many(b"one", b"two", b"three", b"four")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        self.proxy.lose = b"EVALSHA"
        answer = consumer.exchange([Settlement(first, "ack")], 2)
        self.assertEqual(answer.settled, [True])
        self.assertEqual(
            [(each.payload, each.deliveries) for each in answer.reservations], [(b"two", 1), (b"three", 1)]
        )
        self.assertEqual(self.the_list(), [b"four"])

    def test_an_exchange_that_never_arrived_is_carried_out(self) -> None:
        self.queue.write_many(b"one", b"two")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        # A restarting server closes the connection too.
        consumer._connection._connection._sock.close()
        answer = consumer.exchange([Settlement(first, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_a_repeated_settlement_is_not_taken_for_a_late_one(self) -> None:
        for how in ("ack", "release", "bury", "put_back"):
            with self.subTest(how):
                self.queue.write(b"one")
                consumer = self.consumer()
                reservation = self.take(consumer=consumer)
                self.proxy.lose = b"EVALSHA"
                self.assertEqual(consumer.exchange([Settlement(reservation, how)]).settled, [True])
                self.assertEqual(self.queue.counts().reserved, 0)
                self.redis.delete(*self.keys)

    def test_a_repeated_late_settlement_is_still_refused(self) -> None:
        self.queue.write(b"one")
        consumer = self.consumer(0)
        late = self.take(consumer=consumer)
        self.take()
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(consumer.exchange([Settlement(late, "ack")]).settled, [False])

    def test_an_extension_whose_answer_was_lost_counts(self) -> None:
        self.queue.write(b"one")
        consumer = self.consumer(0.3)
        reservation = self.take(consumer=consumer)
        consumer.lease = 60
        consumer.extend([])
        self.proxy.lose = b"EVALSHA"
        consumer.extend([reservation])
        time.sleep(0.3)
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(consumer.exchange([Settlement(reservation, "ack")]).settled, [True])

    def test_a_repeated_take_takes_one_message(self) -> None:
        self.queue.write_many(b"one", b"one")
        entry = self.queue.browse("due", 1)[0]
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(self.consumer().take(entry).payload, b"one")
        self.assertEqual(self.the_list(), [b"one"])

    def test_a_read_loses_nothing(self) -> None:
        self.queue.write(b"one")
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(self.queue.read(), b"one")
        self.assertEqual(self.redis.exists(*self.keys), 0)


class InterruptTests(RedisTestCase):
    """The consumer is interrupted after it has sent a command and before it has read the answer."""

    def test_an_interrupt_between_command_and_answer_mixes_up_no_answers(self) -> None:
        for step, left in (("send_command", [b"one", b"two", b"three"]), ("read_response", [b"two", b"three"])):
            with self.subTest(step):
                self.queue.write_many(b"one", b"two", b"three")
                consumer = self.consumer()
                settlements = [Settlement(self.take(consumer=consumer), "ack")]
                interrupted = mock.patch.object(consumer._connection._connection, step, side_effect=KeyboardInterrupt)
                with interrupted, self.assertRaises(KeyboardInterrupt):
                    consumer.exchange(settlements, 1)
                consumer.close()
                self.assertEqual(self.the_list(), left)
                self.redis.delete(*self.keys)

    def test_take_first_collects_the_reservations_of_an_interrupted_exchange(self) -> None:
        self.queue.write_many(b"one", b"two")
        entry = self.queue.browse("due", 2)[1]
        consumer = self.consumer()
        consumer.exchange()
        with mock.patch.object(consumer._connection._connection, "read_response", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, consumer.exchange, wanted=1)
        self.assertEqual(consumer.take(entry).payload, b"two")
        self.assertEqual([each.payload for each in consumer.held.values()], [b"one", b"two"])


class GoneTests(RedisTestCase):
    """The hash of the payloads was deleted or evicted: its messages are gone, and block no others."""

    def test_due_messages_without_payload_are_skipped(self) -> None:
        self.queue.write_many(b"deferred", b"expired", b"three")
        self.settle(self.take(), "release", None, 0.05)
        self.take(0)
        self.redis.delete(self.keys[1])
        time.sleep(0.06)
        self.assertEqual(self.take().payload, b"three")
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=1, dead=0))

    def test_reserved_messages_without_payload_can_be_settled(self) -> None:
        self.queue.write_many(b"suspect", b"1", b"2", b"3", b"4", b"5")
        self.take(0)
        suspect, consumer = self.take(), self.consumer()
        held = consumer.exchange(wanted=5).reservations
        self.redis.delete(self.keys[1])
        ends = [("ack",), ("release",), ("release", b"new"), ("bury",), ("put_back",)]
        settlements = [Settlement(each, *end) for each, end in zip(held, ends, strict=True)]
        answer = consumer.exchange([*settlements, Settlement(suspect, "put_back")], 1)
        self.assertEqual(answer.settled, [True, False, True, False, False, False])
        self.assertEqual([each.payload for each in answer.reservations], [b"new"])

    def test_listed_messages_without_payload_cannot_be_taken(self) -> None:
        self.queue.write(b"one")
        self.take(0)
        (entry,) = self.queue.browse("due", 1)
        self.redis.delete(self.keys[1])
        self.assertIsNone(self.consumer().take(entry))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_deferred_messages_without_payload_are_skipped_by_read(self) -> None:
        self.queue.write_many(b"1", b"2")
        for _ in range(2):
            self.settle(self.take(), "release", None, 60)
        (first,) = self.queue.browse("deferred", 1)
        self.redis.hdel(self.keys[1], first.key)
        self.assertEqual(self.queue.read_many(2), [b"2"])
