"""The Redis queue beside queue-front's redisd, and on the keys of an earlier version."""

from __future__ import annotations

import sys
import time
from unittest import mock
from uuid import uuid4

from django.test import override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import adapt, open_queue
from mailqueue_backend.queues.base import Counts, Settlement
from mailqueue_backend.queues.plain import PlainQueue
from mailqueue_backend.queues.redis import Queue, RedisdQueue
from tests import services
from tests.engines.redis_cases import RedisTestCase
from tests.engines.redis_servers import free_port

REDISD = {"QUEUE_BACKEND": "redisd", "QUEUE_REDIS_CONNECTION": services.REDIS}


class RedisdTests(RedisTestCase):
    """The queue beside queue-front's redisd, through which 0.1.2 reads and writes."""

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

    def test_redisd_does_not_see_what_is_reserved_until_it_is_released(self) -> None:
        self.old.write(b"one")
        reservation = self.take()
        self.assertEqual((len(self.old), self.old.read()), (0, None))
        self.settle(reservation, "release", b"one again")
        self.assertEqual((len(self.old), self.old.read()), (1, b"one again"))

    def test_an_expired_lease_counts_although_the_list_is_empty(self) -> None:
        self.old.write(b"one")
        self.take(0)
        self.assertEqual((len(self.old), len(self.queue)), (0, 1))
        self.assertEqual(self.take().payload, b"one")

    def test_due_messages_can_be_released_for_redisd_as_the_readme_says(self) -> None:
        self.old.write_many(b"deferred", b"expired", b"waits")
        self.settle(self.take(), "release", None, 0.001)
        self.take(0)
        time.sleep(0.01)
        for _ in range(self.queue.counts().due):
            self.settle(self.take(600), "release")
        self.assertEqual(sorted(self.old.read_many(3)), [b"deferred", b"expired", b"waits"])
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_only_redisds_own_class_is_upgraded_in_place(self) -> None:
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

    def test_its_error_is_also_a_queue_exception(self) -> None:
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


class OldLayoutTests(RedisTestCase):
    """Keys that an earlier version has left: its receipts were 32 hex digits."""

    def setUp(self) -> None:
        super().setUp()
        waiting, payloads, leases, deliveries, deferred, dead = self.keys
        expired, reserved, ready, later = (uuid4().hex for _ in range(4))
        now = time.time() * 1_000_000
        self.redis.rpush(waiting, b"waits")
        self.redis.rpush(dead, b"dead")
        bodies = {expired: b"expired", reserved: b"reserved", ready: b"ready", later: b"later"}
        self.redis.hset(payloads, mapping=bodies)
        self.redis.zadd(leases, {expired: now - 1_000_000, reserved: now + 300_000})
        self.redis.hset(deliveries, mapping={expired: 2, reserved: 1})
        self.redis.zadd(deferred, {ready: now - 1_000_000, later: now + 60_000_000})

    def test_all_messages_are_counted_and_listed(self) -> None:
        self.assertEqual(self.queue.counts(), Counts(waiting=4, due=3, deferred=1, reserved=1, dead=1))
        listed = {
            state: [each.payload for each in self.queue.browse(state, 9)] for state in ("due", "deferred", "dead")
        }
        self.assertEqual(listed, {"due": [b"expired", b"ready", b"waits"], "deferred": [b"later"], "dead": [b"dead"]})

    def test_all_due_messages_are_drained(self) -> None:
        drained: list[tuple[bytes, int]] = []
        with self.queue.consumer(60) as consumer:
            for _ in range(2):
                while reservations := consumer.exchange(wanted=1).reservations:
                    drained += [(each.payload, each.deliveries) for each in reservations]
                    consumer.exchange([Settlement(each, "ack") for each in reservations])
                time.sleep(0.3)
        self.assertEqual(drained, [(b"expired", 3), (b"waits", 1), (b"ready", 1), (b"reserved", 2)])
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=0, deferred=1, reserved=0, dead=1))
