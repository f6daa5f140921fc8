"""A failed message that the queue does not store again."""

from __future__ import annotations

from typing import Any
from unittest import mock

from mailqueue_backend.errors import PayloadRefused
from mailqueue_backend.queues.base import Exchange, Settlement
from tests.smtp import in_turn

from .base import FeedMixin


class UnstorableContract(FeedMixin):
    """It is left to its lease with its count of deliveries, and affects no other message."""

    def test_message_that_has_become_too_large_is_left_to_its_lease(self) -> None:
        self.need("leases")
        self.enqueue(*"abc")
        with mock.patch.object(type(self.queue), "explain_size", return_value="it is too large"):
            self.check_b_is_left("it is too large")

    def test_message_that_the_queue_refuses_is_left_to_its_lease(self) -> None:
        self.need("leases")
        self.enqueue(*"abc")
        with self.refusing(times=99):
            self.check_b_is_left("refused")

    def test_message_that_the_queue_refuses_once_is_requeued(self) -> None:
        self.enqueue(*"abc")
        with self.refusing(times=1):
            report = self.drain_without_b()
        self.assertEqual((report.sent, report.requeued, self.sent()), (2, 1, ["a", "c"]))
        self.assertLeft("b")

    def check_b_is_left(self, reason: str) -> None:
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            report = self.drain_without_b()
        self.assertIn(f"stays reserved until its lease ends: it cannot be stored again: {reason}", str(logged.output))
        self.assertEqual((report.sent, report.requeued, self.sent()), (2, 1, ["a", "c"]))
        self.assertEqual(self.queue.counts(), (0, 0, 0, 1, 0))
        self.assertEqual([entry.deliveries for entry in self.queue.browse("reserved", 9)], [1])

    def drain_without_b(self) -> Any:
        self.script = in_turn(dot=[None, "552 5.3.4 too big"])
        return self.drain()

    def refusing(self, times: int) -> Any:
        """Make the queue refuse the payloads of released messages."""
        kind = type(self.queue.consumer(1))
        exchange, left = kind._exchange, [None] * times

        def refuse(consumer: Any, name: str, settlements: list[Settlement], *more: Any) -> Exchange:
            for settlement in settlements:
                if settlement.how == "release" and left:
                    left.pop()
                    raise PayloadRefused("refused", settlement.reservation.receipt)
            return exchange(consumer, name, settlements, *more)

        return mock.patch.object(kind, "_exchange", refuse)
