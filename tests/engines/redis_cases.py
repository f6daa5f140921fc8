"""Base classes for the tests of the Redis queue: a separate queue for each test, and consumers that die."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from uuid import uuid4

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Consumer, Reservation, Settlement
from mailqueue_backend.queues.redis import Queue
from tests import services
from tests.engines.redis_servers import Proxy

needs_driver = services.needs("redis-py", find_spec("redis") is not None)


def queue_at(url: str, name: str) -> Queue:
    with override_settings(MAIL_QUEUE_REDIS_URL=url):
        return Queue(name)


class TakingMixin:
    """Reserve and settle. Every consumer dies without closing, so its messages stay reserved until their leases end."""

    queue: Queue

    def consumer(self, lease: float = 60) -> Consumer:
        """Open a consumer whose connection is closed, without putting anything back, when the test ends."""
        consumer = self.queue.consumer(lease)
        self.addCleanup(consumer._connection.close)  # type: ignore[attr-defined]
        return consumer

    def take(self, lease: float = 60, consumer: Consumer | None = None) -> Reservation:
        """Reserve exactly one message; fail if none is due."""
        (reservation,) = (consumer or self.consumer(lease)).exchange(wanted=1).reservations
        return reservation

    def settle(self, reservation: Reservation, how: str, *more: object) -> bool:
        (settled,) = self.consumer().exchange([Settlement(reservation, how, *more)]).settled  # type: ignore[arg-type]
        return settled


@services.needs("Redis", services.redis_answers())
class RedisTestCase(TakingMixin, SimpleTestCase):
    """A queue with a unique name on the shared server."""

    url = f"redis://{services.REDIS}"

    def setUp(self) -> None:
        super().setUp()
        self.name = f"{services.PREFIX}_{uuid4().hex[:8]}"
        self.queue = queue_at(self.url, self.name)
        self.redis = self.queue._server.client
        self.keys = self.queue._keys
        self.addCleanup(self.redis.delete, *self.keys)

    def go_through_a_proxy(self, options: str = "") -> None:
        """Put a proxy that can lose an answer before the server, and load the script through it."""
        self.proxy = Proxy(services.REDIS)
        self.addCleanup(self.proxy.close)
        self.queue = queue_at(f"redis://{self.proxy.address}{options}", self.name)
        self.addCleanup(self.queue._server.hang_up)
        self.queue.counts()

    def the_list(self) -> list[bytes]:
        """Return the payloads that redisd and 0.1.2 see."""
        payloads: list[bytes] = self.redis.lrange(self.name, 0, -1)
        return payloads


@contextmanager
def assert_in_time(case: SimpleTestCase, *texts: str) -> Iterator[None]:
    """Expect QueueUnavailable within 5 seconds, with these texts and without the password of the URL."""
    started = time.monotonic()
    with case.assertRaises(QueueUnavailable) as caught:
        yield
    case.assertLess(time.monotonic() - started, 5)
    for text in texts:
        case.assertIn(text, str(caught.exception))
    case.assertNotIn("s3cret", "".join(traceback.format_exception(caught.exception)))
