"""queue-front's redisd behind the contract of any queue-front module."""

from __future__ import annotations

import importlib

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import MessageQueue, Settlement
from mailqueue_backend.queues.plain import PlainQueue
from tests import services
from tests.engines.contract import QueueContract


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="redisd")
class PlainRedisdTests(QueueContract, SimpleTestCase):
    """queue-front's own redisd, used as a site's subclass of it would be."""

    def make_queue(self, name: str) -> MessageQueue:
        return PlainQueue(importlib.import_module("queue_front.backends.redisd").Queue(name))

    def test_a_server_that_is_down_is_unavailable(self) -> None:
        import queue_front
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.queue.write(b"a")
        consumer = self.consumer()
        release = Settlement(self.reserve(consumer), "release")
        server = self.queue.module_queue._connection
        self.queue.module_queue._connection = Redis(port=1, retry=Retry(NoBackoff(), 0))
        for name, call in {
            "read": self.queue.read,
            "reserve": lambda: self.consumer().exchange(wanted=1),
            "write": lambda: self.queue.write(b"a"),
            "write_many": lambda: self.queue.write_many(b"a", b"b"),
            "len": lambda: len(self.queue),
            "counts": self.queue.counts,
            "release": lambda: consumer.exchange([release]),
        }.items():
            with self.subTest(name):
                with self.assertRaises(QueueUnavailable) as caught:
                    call()
                self.assertIsInstance(caught.exception, queue_front.QueueException)
                self.assertIn(self.queue.name, str(caught.exception))
        self.queue.module_queue._connection = server
        self.assertEqual(consumer.exchange([release]).settled, [True])
        self.assertEqual(self.queue.read_many(2), [b"a"])
