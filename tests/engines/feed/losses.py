"""A queue that does not answer, or whose connection is lost."""

from __future__ import annotations

import logging
import time
from itertools import product
from typing import Any
from unittest import mock

from django.test import override_settings

from mailqueue_backend.delivery import feed, in_flight
from mailqueue_backend.delivery.worker import MAX_DELIVERIES
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Consumer, Exchange, Settlement
from tests.smtp import always

from .base import MANY, FeedMixin


class UnavailableContract(FeedMixin):
    """A queue that does not answer costs neither a message nor a second copy."""

    def lose(self, first: int, amount: int = 1, carried_out: bool = False) -> Any:
        """Make ``amount`` exchanges raise from number ``first`` on; the engine carries them out if ``carried_out``."""
        kind = type(self.queue.consumer(1))
        exchange, calls = kind._exchange, iter(range(1, 999))

        def lossy(consumer: Any, *arguments: Any) -> Exchange:
            failing = first <= next(calls) < first + amount
            if failing and not carried_out:
                raise QueueUnavailable("It restarts.")
            answer = exchange(consumer, *arguments)
            if failing:
                raise QueueUnavailable("The answer was lost.")
            return answer

        return mock.patch.object(kind, "_exchange", lossy)

    def test_lost_exchange_costs_neither_message_nor_copy(self) -> None:
        self.set(PAUSES=(0, 0, 0), FAST=0)
        for workers, first, carried_out in product((1, 3), (1, 2, 3, 5), (False, True)):
            with self.subTest(workers=workers, first=first, carried_out=carried_out):
                self.start_anew()
                self.enqueue(*MANY[:50])
                with self.lose(first, carried_out=carried_out):
                    report = self.drain(workers=workers)
                self.assertEqual((report.sent, sorted(self.sent())), (50, MANY[:50]))
                self.assertLeft()

    def test_lost_last_exchange_costs_neither_message_nor_copy(self) -> None:
        self.set(PAUSES=(0, 0, 0))
        for carried_out in (False, True):
            with self.subTest(carried_out=carried_out):
                self.start_anew()
                self.enqueue("a")
                with self.lose(2, carried_out=carried_out):
                    report = self.drain()
                self.assertEqual((report.sent, self.sent()), (1, ["a"]))
                self.assertLeft()

    def test_queue_that_stays_down_raises(self) -> None:
        self.set(PAUSES=(0, 0, 0))
        self.enqueue("a", "b")
        with self.lose(1, amount=999), self.assertRaises(QueueUnavailable):
            self.drain()
        self.assertEqual(self.sent(), [])
        self.assertLeft("a", "b")

    def test_queue_that_answers_but_refuses_to_reserve_raises(self) -> None:
        self.set(PAUSES=(0, 0, 0))
        self.enqueue("a", "b")
        kind = type(self.queue.consumer(1))
        exchange = kind._exchange

        def refuse(consumer: Any, name: str, settlements: Any, wanted: int, is_repeated: bool) -> Exchange:
            if wanted and not is_repeated:
                raise QueueUnavailable("It is read-only.")
            return exchange(consumer, name, settlements, wanted, is_repeated)

        with mock.patch.object(kind, "_exchange", refuse), self.assertRaises(QueueUnavailable):
            self.drain()
        self.assertLeft("a", "b")

    def test_delivered_message_is_settled_when_the_queue_comes_back_within_the_lease(self) -> None:
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a", "b")
        with self.lose(2, amount=30):
            self.drain()
        self.assertEqual(self.sent(), ["a", "b"])
        self.assertLeft()

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_delivered_message_is_settled_when_the_queue_comes_back_after_the_lease(self) -> None:
        self.need("leases")
        self.set(PAUSES=(0, 0, 0.1))
        self.enqueue("a")
        with self.lose(2, amount=5):
            self.drain()
        self.assertEqual(self.sent(), ["a"])
        self.assertLeft()

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_lost_settlements_are_not_taken_for_deaths(self) -> None:
        self.need("leases")
        self.set(PAUSES=(0, 0, 0.01), FAST=0)
        self.enqueue("a", "b", "c")
        for _ in range(MAX_DELIVERIES + 1):
            with self.lose(2, amount=999), self.assertRaises(QueueUnavailable):
                self.drain()
            time.sleep(0.3)
        with self.assertNoLogs("mailqueue_backend.delivery", logging.ERROR):
            self.drain()
        self.assertEqual(sorted(self.sent()), ["a", "b", "c"])
        self.assertLeft()

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_lost_settlements_are_remembered_until_the_message_is_settled(self) -> None:
        self.need("leases")
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a")
        for _ in range(MAX_DELIVERIES):
            with mock.patch.object(self.smtp, "port", 9), self.lose(2, amount=999), self.assertRaises(QueueUnavailable):
                self.drain()
            time.sleep(0.3)
        self.down()  # puts the message back, as a suspect
        self.drain()
        self.assertEqual(self.sent(), ["a"])

    def test_pause_that_cannot_be_checked_does_not_end_a_drain(self) -> None:
        self.enqueue("a")
        with mock.patch.object(in_flight, "paused_reason", side_effect=QueueUnavailable):
            self.drain()
        self.assertEqual(self.sent(), ["a"])

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_failed_message_whose_settlement_is_lost_is_requeued_later(self) -> None:
        self.need("leases")
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a")
        self.script = always("dot", "451 later")
        for _ in range(MAX_DELIVERIES + 1):
            with self.lose(2, amount=999), self.assertRaises(QueueUnavailable):
                self.drain()
            time.sleep(0.3)
        self.drain()
        self.assertEqual([envelope.meta.attempts for envelope in self.left()], [1])
        self.assertLeft("a")

    @override_settings(MAIL_QUEUE_LEASE=0.4)
    def test_queue_that_is_down_for_longer_than_the_lease_raises(self) -> None:
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a", "b")
        began = time.monotonic()
        with self.lose(2, amount=999), self.assertRaises(QueueUnavailable):
            self.drain()
        self.assertLess(time.monotonic() - began, 2)


class LostConnectionContract(FeedMixin):
    """After a lost connection, the engine hands out again every message that was not settled."""

    def test_messages_that_were_not_begun_are_dropped_and_handed_out_again(self) -> None:
        self.need("leases")
        self.set(FAST=0)
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.start_anew()
                self.enqueue(*MANY)
                with self.losing(at=4):
                    report = self.drain(workers=workers)
                self.drain()
                self.assertEqual(set(self.sent()), set(MANY))
                self.assertLeft()
                # Only messages that were begun, or delivered and not settled, may arrive twice.
                self.assertLessEqual(len(self.sent()), 60 + workers + feed.READY)
                self.assertGreaterEqual(report.sent, 50)

    def losing(self, at: int) -> Any:
        """Lose the connection at this exchange: all held messages become due again."""
        exchange, calls = Consumer.exchange, iter(range(1, 999))

        def lossy(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            answer = exchange(consumer, settlements, wanted)
            if next(calls) != at:
                return answer
            exchange(consumer, [Settlement(one, "put_back") for one in consumer.held.values()])
            return answer._replace(reservations=[], lost=True)

        return mock.patch.object(Consumer, "exchange", lossy)
