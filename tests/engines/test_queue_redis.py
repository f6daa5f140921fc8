"""The Redis queue on a real server: the contract, and the promises specific to Redis."""

from __future__ import annotations

import os
import time
from unittest import mock

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue, Settlement
from mailqueue_backend.queues.redis import Queue
from tests import services
from tests.engines.contract import QueueContract, TakersContract
from tests.engines.contract.base import OpensQueues
from tests.engines.redis_cases import RedisTestCase, queue_at


class OpensByName(OpensQueues):
    def make_queue(self, name: str) -> MessageQueue:
        queue = open_queue(name)
        assert isinstance(queue, Queue)
        # Emptying the queue does not remove what a test has left reserved.
        self.addCleanup(queue._server.client.delete, *queue._keys)
        return queue


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="redisd")
class RedisdContractTests(OpensByName, QueueContract, TakersContract, SimpleTestCase):
    pass


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="mailqueue_backend.queues.redis")
class RedisContractTests(OpensByName, QueueContract, TakersContract, SimpleTestCase):
    pass


class LeaseTests(RedisTestCase):
    def test_an_acknowledged_message_leaves_no_key_behind(self) -> None:
        self.queue.write(b"one")
        self.assertTrue(self.settle(self.take(), "ack"))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_an_expired_lease_can_be_settled_unless_another_consumer_took_it(self) -> None:
        self.queue.write(b"one")
        reservation = self.take(0)
        self.assertTrue(self.settle(reservation, "ack"))
        self.assertFalse(self.settle(reservation, "ack"))

    def test_a_deferred_message_goes_to_the_tail_when_it_is_due(self) -> None:
        self.queue.write(b"one")
        self.settle(self.take(), "release", None, 0.001)
        self.queue.write_many(b"two", b"three")
        time.sleep(0.01)
        self.assertEqual(self.take().payload, b"two")
        self.assertEqual(self.the_list(), [b"three", b"one"])

    def test_two_deferred_messages_may_have_the_same_bytes(self) -> None:
        self.queue.write_many(b"same", b"same")
        for _ in range(2):
            self.settle(self.take(), "release", None, 60)
        self.assertEqual(self.queue.counts().deferred, 2)
        self.assertEqual(self.redis.exists(self.keys[3]), 0, "what is deferred has no deliveries")

    def test_read_returns_due_messages_then_deferred_ones_and_no_reserved_ones(self) -> None:
        self.queue.write_many(b"late", b"early", b"reserved", b"expired", b"waits")
        self.settle(self.take(), "release", None, 60)
        self.settle(self.take(), "release", None, 30)
        self.take()
        self.take(0)
        self.assertEqual(self.queue.read_many(9), [b"expired", b"waits", b"early", b"late"])
        self.assertIsNone(self.queue.read())

    def test_a_group_is_one_call_of_the_script(self) -> None:
        self.go_through_a_proxy()
        self.queue.write_many(*[b"%d" % number for number in range(8)])
        consumer = self.consumer()
        settlements = [Settlement(each, "ack") for each in consumer.exchange(wanted=4).reservations]
        with mock.patch.object(consumer._connection, "execute", wraps=consumer._connection.execute) as execute:
            answer = consumer.exchange(settlements, 4)
        self.assertEqual((answer.settled, len(answer.reservations)), ([True] * 4, 4))
        self.assertEqual([call.args[0] for call in execute.call_args_list], ["EVALSHA"])

    def test_a_large_message_survives_every_move(self) -> None:
        payload = os.urandom(25_000_000)
        self.queue.write(payload)
        self.settle(self.take(), "release", None, 0.001)
        time.sleep(0.01)
        self.take(0)
        self.settle(self.take(), "bury")
        self.assertTrue(queue_at(self.url, self.queue.dead_name).read() == payload)

    def test_more_than_a_thousand_can_be_held_and_put_back(self) -> None:
        payloads = [b"%d" % number for number in range(2500)]
        self.queue.write_many(*payloads)
        consumer = self.consumer()
        self.assertEqual([len(consumer.exchange(wanted=2500).reservations) for _ in range(4)], [1000, 1000, 500, 0])
        consumer.close()
        self.assertEqual(self.the_list(), payloads)
        self.assertEqual(self.redis.exists(*self.keys), 1)

    def test_a_taken_message_is_put_back_with_its_due_time(self) -> None:
        self.queue.write_many(b"deferred", b"expired", b"expired too")
        self.settle(self.take(), "release", None, 60)
        dead = self.consumer(0)
        dead.exchange(wanted=2)
        before = [self.redis.zrange(key, 0, -1, withscores=True)[-1][1] for key in (self.keys[2], self.keys[4])]
        (deferred,) = self.queue.browse("deferred", 1)
        with self.queue.consumer(60) as consumer:
            for entry in (deferred, self.queue.browse("due", 2)[1]):
                self.assertEqual(consumer.take(entry).payload, entry.payload)
        after = [self.redis.zrange(key, 0, -1, withscores=True)[-1][1] for key in (self.keys[2], self.keys[4])]
        self.assertEqual(after, before)
        self.assertEqual([entry.deliveries for entry in self.queue.browse("due", 2)], [1, 1])

    def test_an_entry_listed_while_deferred_can_be_taken_from_the_list(self) -> None:
        self.queue.write(b"one")
        self.settle(self.take(), "release", None, 0.001)
        time.sleep(0.01)
        (entry,) = self.queue.browse("due", 2)
        self.queue.write(b"two")
        with self.queue.consumer(60) as other, self.queue.consumer(60) as consumer:
            other.exchange(wanted=1)
            self.assertEqual(self.the_list(), [b"one"])
            self.assertEqual(consumer.take(entry).payload, b"one")


class BrowseTests(RedisTestCase):
    def test_a_place_in_the_list_is_found_again_with_and_without_lpos(self) -> None:
        payloads = [b"%04d" % number for number in range(500)]
        for denied in ("", "LPOS"):
            with self.subTest(denied=denied):
                self.redis.delete(self.name)
                self.queue.write_many(*payloads)
                page = self.queue.browse("due", 400)
                # Consume some messages before the last entry of the page, then more, then all including that entry.
                for consumed, expected in ((250, payloads[400]), (10, payloads[400]), (140, payloads[400])):
                    self.redis.ltrim(self.name, consumed, -1)
                    with mock.patch.object(self.queue._script, "_evaluate", self.without(denied)):
                        self.assertEqual(self.queue.browse("due", 1, page[-1])[0].payload, expected)

    def without(self, command: str):
        """Return a function that runs the script as a server without this command would."""
        from mailqueue_backend.queues.redis.script import _source

        text = _source().text.replace(f"pcall('{command}'", "pcall('NOSUCHCOMMAND'") if command else _source().text

        def evaluate(execute, call):
            return execute("EVAL", text, len(self.keys), *self.keys, *call)

        return evaluate

    def test_a_message_whose_payload_is_gone_is_not_listed(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        reservations = [self.take(), self.take(), self.take()]
        self.redis.hdel(self.keys[1], reservations[0].receipt)
        self.assertEqual([entry.payload for entry in self.queue.browse("reserved", 1)], [b"two"])


class WriteTests(RedisTestCase):
    def test_the_list_holds_the_bytes_in_order_as_redisd_writes_them(self) -> None:
        self.assertEqual(self.queue.write_many(b"one", b"two"), [True, True])
        self.assertIs(self.queue.write(b"\0three"), True)
        self.assertEqual(self.queue.write_many(), [])
        self.assertEqual(self.the_list(), [b"one", b"two", b"\0three"])

    def test_a_batch_with_one_bad_payload_stores_nothing(self) -> None:
        with self.assertRaises(QueueUnavailable):
            self.queue.write_many(b"one", None)  # type: ignore[arg-type]
        self.assertEqual(self.the_list(), [])

    def test_a_key_of_another_type_is_not_changed(self) -> None:
        self.redis.set(self.name, "a stranger's")
        for operation in (lambda: self.queue.write(b"one"), self.take, self.queue.counts, self.queue.read):
            with self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
                operation()
        self.assertEqual(self.redis.get(self.name), b"a stranger's")
