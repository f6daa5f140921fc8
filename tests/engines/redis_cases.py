"""What the tests of the Redis queue start from: a queue of its own for each test, and consumers that die."""

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
    """Steps of a taker; each consumer of theirs dies, so that what it holds stays reserved until its lease ends."""

    queue: Queue

    def consumer(self, lease: float = 60) -> Consumer:
        """Open a consumer whose connection is closed when the test ends, with whatever it holds."""
        consumer = self.queue.consumer(lease)
        self.addCleanup(consumer._connection.close)  # type: ignore[attr-defined]
        return consumer

    def take(self, lease: float = 60, consumer: Consumer | None = None) -> Reservation:
        """Reserve the one message that must be there."""
        (reservation,) = (consumer or self.consumer(lease)).exchange(wanted=1).reservations
        return reservation

    def settle(self, reservation: Reservation, how: str, *more: object) -> bool:
        (settled,) = self.consumer().exchange([Settlement(reservation, how, *more)]).settled  # type: ignore[arg-type]
        return settled


@services.needs("Redis", services.redis_answers())
class RedisTestCase(TakingMixin, SimpleTestCase):
    """A queue of its own name on the shared server."""

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
        """Return what redisd and 0.1.2 see."""
        payloads: list[bytes] = self.redis.lrange(self.name, 0, -1)
        return payloads


@contextmanager
def assert_in_time(case: SimpleTestCase, *texts: str) -> Iterator[None]:
    """Expect QueueUnavailable with these texts within 5 seconds, and without what stands before the @."""
    started = time.monotonic()
    with case.assertRaises(QueueUnavailable) as caught:
        yield
    case.assertLess(time.monotonic() - started, 5)
    for text in texts:
        case.assertIn(text, str(caught.exception))
    case.assertNotIn("s3cret", "".join(traceback.format_exception(caught.exception)))
