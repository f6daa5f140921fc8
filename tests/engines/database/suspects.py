"""Suspects: when the queue searches the table for them."""

from __future__ import annotations

import time
from unittest import mock

from mailqueue_backend.queues.base import Exchange
from mailqueue_backend.queues.database import consumer as consumers
from tests.engines.contract.base import acks, payloads_of

from .base import OnDatabase


class SuspectSearchContract(OnDatabase):
    """The promises about the search for suspects."""

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_a_busy_consumer_searches_for_suspects_once_a_minute(self) -> None:
        self.queue.write_many(*[b"%d" % number for number in range(9)])
        consumer = self.consumer()
        group = consumer.exchange(wanted=2).reservations
        self.reserve_and_die()
        with mock.patch.object(consumers, "monotonic", return_value=time.monotonic() + 59):
            answer = consumer.exchange(acks(group), 2)
            self.assertEqual((len(answer.reservations), answer.suspect_waiting), (2, False))
        with mock.patch.object(consumers, "monotonic", return_value=time.monotonic() + 61):
            following = consumer.exchange(wanted=2)
            self.assertEqual((len(following.reservations), following.suspect_waiting), (2, True))
        self.assertTrue(consumer.exchange().suspect_waiting)
        answer = consumer.exchange(acks(list(consumer.held.values())), 2)
        self.assertEqual([each.deliveries for each in answer.reservations], [2])

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_a_suspect_is_found_when_nothing_else_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        self.reserve_and_die()
        self.assertEqual(consumer.exchange(wanted=1), Exchange([], [], suspect_waiting=True))
        self.assertEqual(payloads_of(consumer.exchange(settlements, 2).reservations), [b"b"])

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_a_suspect_that_appears_later_is_found_by_an_idle_consumer(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        consumer.exchange(acks([self.reserve(consumer)]), 1)
        self.queue.write(b"b")
        self.reserve_and_die()
        self.assertEqual(payloads_of(consumer.exchange(wanted=2).reservations), [b"b"])
