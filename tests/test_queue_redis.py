"""The Redis queue, and queue-front's redisd beside it, against a real server."""

from __future__ import annotations

import os
import sys
import time
from threading import Thread
from unittest import mock
from uuid import uuid4

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import adapt, open_queue
from mailqueue_backend.queues.base import Counts, MessageQueue, Reservation
from mailqueue_backend.queues.plain import PlainQueue
from mailqueue_backend.queues.redis import Queue, RedisdQueue
from mailqueue_backend.queues.redis_script import keys

from . import services
from .queue_contract import OpensQueues, QueueContract, TakersContract
from .redis_servers import Proxy, free_port

REDISD = {"QUEUE_BACKEND": "redisd", "QUEUE_REDIS_CONNECTION": services.REDIS}


def queue_at(url: str, name: str) -> Queue:
    with override_settings(MAIL_QUEUE_REDIS_URL=url):
        return Queue(name)


class OpensByName(OpensQueues):
    def make_queue(self, name: str) -> MessageQueue:
        queue = open_queue(name)
        assert isinstance(queue, Queue)
        # Also what a test has left in hand.
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


class TakingMixin:
    queue: Queue

    def take(self, lease: float = 60) -> Reservation:
        reservation = self.queue.reserve(lease)
        assert reservation is not None
        return reservation


@services.needs("Redis", services.redis_answers())
class RedisTestCase(TakingMixin, SimpleTestCase):
    """A queue of its own name on the shared server."""

    url = f"redis://{services.REDIS}"

    def setUp(self) -> None:
        super().setUp()
        self.name = f"{services.PREFIX}_{uuid4().hex[:8]}"
        self.queue = queue_at(self.url, self.name)
        self.redis = self.queue._server.client
        self.keys = keys(self.name, self.queue.dead_name)
        self.addCleanup(self.redis.delete, *self.keys)

    def go_through_a_proxy(self, options: str = "") -> None:
        """Have the queue behind a proxy that can lose an answer, with the script loaded."""
        self.proxy = Proxy(services.REDIS)
        self.addCleanup(self.proxy.close)
        self.queue = queue_at(f"redis://{self.proxy.address}{options}", self.name)
        self.addCleanup(self.queue._server.hang_up)
        self.queue.counts()

    def the_list(self) -> list[bytes]:
        """Show what redisd and 0.1.2 see."""
        payloads: list[bytes] = self.redis.lrange(self.name, 0, -1)
        return payloads


class LeaseTests(RedisTestCase):
    def test_an_acknowledged_message_leaves_no_key_behind(self) -> None:
        self.queue.write(b"one")
        reservation = self.take()
        self.assertEqual((reservation.payload, reservation.deliveries), (b"one", 1))
        self.assertTrue(self.queue.ack(reservation))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_an_expired_lease_comes_before_the_list_and_is_counted(self) -> None:
        self.queue.write_many(b"one", b"two")
        for expected in (1, 2, 3):
            reservation = self.take(0)
            self.assertEqual((reservation.payload, reservation.deliveries), (b"one", expected))

    def test_a_late_settlement_changes_nothing(self) -> None:
        self.queue.write(b"one")
        late, holder = self.take(0), self.take()
        before = self.queue.counts()
        self.assertFalse(self.queue.ack(late))
        self.assertFalse(self.queue.release(late, b"changed"))
        self.assertFalse(self.queue.release(late, b"changed", delay=60))
        self.assertFalse(self.queue.bury(late))
        self.assertEqual(self.queue.ack_and_reserve(late, 60), (False, None))
        self.assertEqual(self.queue.counts(), before)
        self.assertTrue(self.queue.release(holder))
        self.assertEqual(self.the_list(), [b"one"])

    def test_a_lease_that_ended_can_be_settled_while_nobody_else_took_it(self) -> None:
        self.queue.write(b"one")
        reservation = self.take(0)
        self.assertTrue(self.queue.ack(reservation))
        self.assertFalse(self.queue.ack(reservation))

    def test_a_released_message_starts_anew(self) -> None:
        for delay in (0, 0.001):
            with self.subTest(delay=delay):
                self.queue.write(b"one")
                self.take(0)
                second = self.take()
                self.assertEqual(second.deliveries, 2)
                self.queue.release(second, b"new bytes", delay)
                time.sleep(0.01)
                third = self.take()
                self.assertEqual((third.payload, third.deliveries), (b"new bytes", 1))
                self.queue.ack(third)

    def test_a_deferred_message_goes_to_the_tail_when_it_is_due(self) -> None:
        self.queue.write(b"one")
        self.queue.release(self.take(), delay=0.001)
        self.queue.write_many(b"two", b"three")
        time.sleep(0.01)
        self.assertEqual(self.take().payload, b"two")
        self.assertEqual(self.the_list(), [b"three", b"one"])

    def test_two_deferred_messages_may_have_the_same_bytes(self) -> None:
        self.queue.write_many(b"same", b"same")
        for _ in range(2):
            self.queue.release(self.take(), delay=60)
        self.assertEqual(self.queue.counts().deferred, 2)
        self.assertEqual(self.redis.exists(self.queue._keys[3]), 0, "what is deferred has no deliveries")

    def test_a_buried_message_stands_unchanged_in_an_ordinary_queue(self) -> None:
        payload = bytes(range(256))
        self.queue.write(payload)
        self.assertTrue(self.queue.bury(self.take()))
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=0, dead=1))
        self.assertEqual(queue_at(self.url, self.queue.dead_name).read(), payload)

    def test_counts_tell_the_states_apart(self) -> None:
        self.queue.write_many(b"deferred", b"ready", b"dead", b"in hand", b"expired", b"waits")
        self.queue.release(self.take(), delay=60)
        self.queue.release(self.take(), delay=0.001)
        self.queue.bury(self.take())
        self.take()
        self.take(0)
        time.sleep(0.01)
        self.assertEqual(self.queue.counts(), Counts(waiting=4, due=3, deferred=1, reserved=1, dead=1))
        self.assertEqual(len(self.queue), 4)

    def test_read_takes_what_is_due_first_then_the_deferred_and_not_what_is_in_hand(self) -> None:
        self.queue.write_many(b"late", b"early", b"in hand", b"expired", b"waits")
        self.queue.release(self.take(), delay=60)
        self.queue.release(self.take(), delay=30)
        self.take()
        self.take(0)
        self.assertEqual(self.queue.read_many(9), [b"expired", b"waits", b"early", b"late"])
        self.assertIsNone(self.queue.read())

    def test_eight_threads_take_each_message_once(self) -> None:
        payloads = [str(number).encode() for number in range(400)]
        taken: list[bytes] = []

        def drain() -> None:
            reservation = self.queue.reserve(60)
            while reservation is not None:
                taken.append(reservation.payload)
                settled, reservation = self.queue.ack_and_reserve(reservation, 60)
                self.assertTrue(settled)

        self.queue.write_many(*payloads)
        run_all([Thread(target=drain) for _ in range(8)])
        self.assertEqual(sorted(taken), sorted(payloads))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_a_large_message_survives_every_move(self) -> None:
        payload = os.urandom(25_000_000)
        self.queue.write(payload)
        self.queue.release(self.take(), delay=0.001)
        time.sleep(0.01)
        self.take(0)
        self.queue.bury(self.take())
        self.assertTrue(queue_at(self.url, self.queue.dead_name).read() == payload)

    def test_a_deleted_store_does_not_block_the_queue(self) -> None:
        self.queue.write_many(b"deferred", b"expired", b"three")
        self.queue.release(self.take(), delay=0.001)
        self.take(0)
        self.redis.delete(self.keys[1])
        time.sleep(0.01)
        self.assertIsNone(self.queue.reserve(60))
        self.assertEqual(self.take().payload, b"three")


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

    def test_a_key_of_another_type_is_left_alone(self) -> None:
        self.redis.set(self.name, "a stranger's")
        for operation in (lambda: self.queue.write(b"one"), lambda: self.queue.reserve(60), self.queue.counts):
            with self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
                operation()
        self.assertEqual(self.redis.get(self.name), b"a stranger's")

    def test_a_key_of_another_type_loses_neither_what_is_in_hand_nor_the_deferred(self) -> None:
        self.queue.write_many(b"deferred", b"in hand")
        deferred, reservation = self.take(), self.take()
        self.queue.release(deferred, delay=0.001)
        time.sleep(0.01)
        for key, operation in (
            (self.name, self.queue.release),
            (self.name, lambda _: self.queue.reserve(60)),
            (self.queue.dead_name, self.queue.bury),
        ):
            with self.subTest(key), self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
                self.redis.set(key, "a stranger's")
                operation(reservation)
            self.redis.delete(key)
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=1, deferred=0, reserved=1, dead=0))
        self.assertEqual(self.queue.read(), b"deferred")
        self.assertTrue(self.queue.release(reservation))
        self.assertEqual(self.queue.read(), b"in hand")


class LostAnswerTests(RedisTestCase):
    """A command is carried out, and the connection breaks before its answer arrives."""

    def setUp(self) -> None:
        super().setUp()
        # The option is one for trouble: it must not get its way.
        self.go_through_a_proxy("?retry_on_timeout=1")

    def test_a_write_raises_and_is_not_stored_twice(self) -> None:
        self.proxy.lose = b"RPUSH"
        with self.assertRaisesRegex(QueueUnavailable, self.proxy.address):
            self.queue.write(b"one")
        self.assertEqual(self.the_list(), [b"one"])
        self.queue.write(b"two")
        self.assertEqual(self.the_list(), [b"one", b"two"])

    def test_a_reserve_gets_the_same_answer_again(self) -> None:
        self.queue.write_many(b"one", b"two")
        self.proxy.lose = b"EVALSHA"
        reservation = self.take()
        self.assertEqual((reservation.payload, reservation.deliveries), (b"one", 1))
        self.assertEqual(self.the_list(), [b"two"])
        self.assertTrue(self.queue.ack(reservation))

    def test_a_settlement_is_not_mistaken_for_a_late_one(self) -> None:
        for settle in (self.queue.ack, self.queue.release, self.queue.bury):
            with self.subTest(settle.__name__):
                self.queue.write(b"one")
                reservation = self.take()
                self.proxy.lose = b"EVALSHA"
                self.assertTrue(settle(reservation))
                self.assertEqual(self.queue.counts().reserved, 0)
                self.redis.delete(*self.keys)

    def test_a_late_settlement_is_still_seen_to_be_late(self) -> None:
        self.queue.write(b"one")
        late = self.take(0)
        self.take()
        self.proxy.lose = b"EVALSHA"
        self.assertFalse(self.queue.ack(late))

    def test_an_ack_and_reserve_gets_the_same_answer_again(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        first = self.take()
        self.proxy.lose = b"EVALSHA"
        settled, second = self.queue.ack_and_reserve(first, 60)
        assert second is not None
        self.assertEqual((settled, second.payload, second.deliveries), (True, b"two", 1))
        self.assertEqual(self.the_list(), [b"three"])

    def test_a_read_loses_nothing(self) -> None:
        self.queue.write(b"one")
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(self.queue.read(), b"one")
        self.assertEqual(self.redis.exists(*self.keys), 0)


class RedisdTests(RedisTestCase):
    """Side by side with queue-front's redisd, which is all that 0.1.2 uses."""

    def setUp(self) -> None:
        super().setUp()
        settings = override_settings(**REDISD)
        settings.enable()
        self.addCleanup(settings.disable)
        from queue_front.backends import redisd

        self.redisd = redisd
        self.old = redisd.Queue(self.name)
        self.queue = RedisdQueue(self.name)

    def test_each_reads_what_the_other_wrote(self) -> None:
        self.old.write_many(b"old 1", b"old 2")
        self.queue.write_many(b"new 1", b"new 2")
        self.assertEqual(self.take().payload, b"old 1")
        self.assertEqual([self.old.read(), self.old.read()], [b"old 2", b"new 1"])
        self.assertEqual(self.queue.read(), b"new 2")

    def test_redisd_does_not_see_what_is_in_hand_until_it_is_released(self) -> None:
        self.old.write(b"one")
        reservation = self.take()
        self.assertEqual((len(self.old), self.old.read()), (0, None))
        self.queue.release(reservation, b"one again")
        self.assertEqual((len(self.old), self.old.read()), (1, b"one again"))

    def test_a_drain_counts_an_expired_lease_though_the_list_is_empty(self) -> None:
        self.old.write(b"one")
        self.take(0)
        self.assertEqual((len(self.old), len(self.queue)), (0, 1))
        self.assertEqual(self.take().payload, b"one")

    def test_everything_that_is_due_can_be_put_back_for_redisd_as_the_readme_says(self) -> None:
        self.old.write_many(b"deferred", b"expired", b"waits")
        self.queue.release(self.take(), delay=0.001)
        self.take(0)
        time.sleep(0.01)
        for _ in range(self.queue.counts().due):
            self.queue.release(self.take(600))
        self.assertEqual(sorted(self.old.read_many(3)), [b"deferred", b"expired", b"waits"])
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_a_queue_of_redisd_itself_is_upgraded_in_place(self) -> None:
        class SitesOwn(self.redisd.Queue):  # type: ignore[name-defined, misc]
            pass

        upgraded = adapt(self.old)
        self.assertIs(type(upgraded), RedisdQueue)
        self.assertEqual(upgraded.name, self.name)
        self.assertIs(type(adapt(SitesOwn(self.name))), PlainQueue)

    def test_queue_backend_chooses_the_class(self) -> None:
        for backend, expected in (
            ("redisd", RedisdQueue),
            ("queue_front.backends.redisd", RedisdQueue),
            ("mailqueue_backend.queues.redis", Queue),
        ):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend, MAIL_QUEUE_REDIS_URL=self.url):
                self.assertIs(type(open_queue(self.name)), expected)

    def test_its_error_is_one_of_queue_front_too(self) -> None:
        from queue_front import QueueException

        address = f"127.0.0.1:{free_port()}"
        with override_settings(QUEUE_REDIS_CONNECTION=address):
            queue = RedisdQueue(self.name)
        with self.assertRaisesRegex(QueueException, f"{address}.*QUEUE_REDIS_CONNECTION") as caught:
            queue.write(b"one")
        self.assertIsInstance(caught.exception, QueueUnavailable)

    def test_its_error_needs_no_queue_front(self) -> None:
        with override_settings(QUEUE_REDIS_CONNECTION=f"127.0.0.1:{free_port()}"):
            queue = RedisdQueue(self.name)
        with mock.patch.dict(sys.modules), self.assertRaises(QueueUnavailable):
            del sys.modules["queue_front"]
            queue.write(b"one")


def run_all(threads: list[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
