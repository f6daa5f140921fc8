"""How many messages a drain reserves, and for how long."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.db import connections
from django.test import override_settings, tag

from mailqueue_backend.delivery import feed
from mailqueue_backend.delivery.deadlines import Deadline
from mailqueue_backend.delivery.events import Announcer
from mailqueue_backend.delivery.limits import DrainOptions, Quota
from mailqueue_backend.delivery.policy import DELIVERED
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Consumer, Exchange, Reservation
from tests.smtp import delayed

from .base import MANY, FeedMixin


class HoldingContract(FeedMixin):
    """How many messages a drain reserves, and for how long."""

    def test_several_workers_hold_one_each_and_eight_more(self) -> None:
        seen = self.watch(delay=0.01)
        self.enqueue(*MANY)
        self.drain(workers=3)
        most = 3 + feed.READY if self.queue.leases else 3
        self.assertLessEqual(max(counts.reserved for counts in seen), most)
        self.assertGreaterEqual(max(counts.reserved for counts in seen), 3)

    def test_slow_message_is_settled_before_the_next_begins(self) -> None:
        seen = self.watch(delay=2 * feed.FAST)
        self.enqueue("a", "b", "c", "d")
        self.drain()
        self.assertEqual([counts.waiting + counts.reserved for counts in seen], [4, 3, 2, 1])

    def test_fast_messages_are_settled_in_groups(self) -> None:
        self.need("leases")
        self.set(FAST=60)
        self.enqueue(*MANY[:16])
        self.assertEqual(self.exchanges(), [(0, 8), (8, 8), (8, 0)])

    def test_class_with_a_hook_has_groups_of_one(self) -> None:
        self.enqueue("a", "b", "c")
        self.assertEqual(self.exchanges(Hooked), [(0, 1), (1, 1), (1, 1), (1, 0)])

    def exchanges(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend) -> list[tuple[int, int]]:
        """Drain; return how many messages each exchange settled and how many it asked for."""
        seen: list[tuple[int, int]] = []
        exchange = Consumer.exchange

        def noted(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            seen.append((len(settlements), wanted))
            return exchange(consumer, settlements, wanted)

        with mock.patch.object(Consumer, "exchange", noted):
            self.drain(kind)
        return seen

    @tag("slow")
    @override_settings(MAIL_QUEUE_LEASE=1.0)
    def test_leases_of_ready_messages_are_extended(self) -> None:
        self.need("leases")
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 4))
        self.watch(delay=0.2)
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.start_anew()
                self.enqueue(*"abcdefgh")
                with self.another_consumer() as stolen:
                    self.drain(workers=workers)
                self.assertEqual((stolen, sorted(self.sent())), ([], list("abcdefgh")))

    @tag("slow")
    @override_settings(MAIL_QUEUE_LEASE=3.0)
    def test_reply_to_the_whole_message_may_take_longer_than_other_steps(self) -> None:
        self.need("leases")
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 1))
        # A message has half of the lease. A worker in the feed's thread may then wait until the lease ends; the feed
        # renews it for the others.
        for workers, seconds in ((1, 2.2), (2, 4.5)):
            with self.subTest(workers=workers):
                self.start_anew()
                self.script = delayed("dot", seconds)
                self.enqueue("a", "b")
                with self.another_consumer() as stolen:
                    self.drain(workers=workers)
                self.assertEqual((stolen, sorted(self.sent())), ([], ["a", "b"]))

    def test_ready_messages_are_dropped_once_another_drain_may_hold_them(self) -> None:
        self.need("leases")
        self.enqueue("a", "b", "c")
        quota = Quota(3, DrainOptions())
        owner = feed.Feed(self.queue, 60, quota, Report(), feed.READY, lambda: True, Announcer())
        first = owner.next()
        assert first is not None
        first.disposition = DELIVERED
        owner.outbox.put(first)
        for delivery in owner.in_flight._deliveries.values():
            delivery.reserved_at -= 61  # as after a SIGSTOP
        self.assertIsNone(owner.next())
        owner.close()
        self.assertEqual(self.queue.counts()[:4], (2, 2, 0, 0))

    def test_exchange_that_takes_longer_than_a_tiny_lease_loses_nothing(self) -> None:
        self.need("leases")
        self.enqueue("a", "b")
        # The deadline, half of this lease, is too short for any delivery.
        self.use(mock.patch.object(Deadline, "start"))
        with override_settings(MAIL_QUEUE_LEASE=0.01), self.slow_exchanges(0.05):
            self.drain(workers=1)
        self.assertEqual(self.sent(), ["a", "b"])

    @contextmanager
    def slow_exchanges(self, seconds: float) -> Iterator[None]:
        exchange = Consumer.exchange

        def late(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            answer = exchange(consumer, settlements, wanted)
            time.sleep(seconds)
            return answer

        with mock.patch.object(Consumer, "exchange", late):
            yield

    @contextmanager
    def another_consumer(self) -> Iterator[list[Reservation]]:
        """Run a consumer in another thread that reserves every due message; yield its reservations."""
        taken: list[Reservation] = []
        over = threading.Event()

        def take() -> None:
            consumer = self.queue.consumer(60)
            over.wait(0.3)
            while not over.wait(0.05):
                taken.extend(consumer.exchange(wanted=1).reservations)
            consumer.close()
            connections.close_all()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield taken
        finally:
            over.set()
            thread.join()


class Hooked(QueuedEmailBackend):
    def _send_queued_messages(self, *arguments: Any) -> Any:
        return super()._send_queued_messages(*arguments)
