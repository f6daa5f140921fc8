"""Servers without SKIP LOCKED, such as MariaDB before 10.6."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event
from unittest import mock

from django.db import connections, transaction

from mailqueue_backend.queues.base import Exchange
from mailqueue_backend.queues.database import rows
from tests.engines.contract import TakersContract
from tests.engines.contract.base import acks


class WithoutSkipLocked(TakersContract):
    def setUp(self) -> None:
        super().setUp()
        features = type(connections[self.alias].features)
        without = mock.patch.object(features, "has_select_for_update_skip_locked", False)
        without.start()
        self.addCleanup(without.stop)
        rows.compile_select.cache_clear()
        self.addCleanup(rows.compile_select.cache_clear)

    def test_an_exchange_does_not_wait_for_uncommitted_rows(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        reservation = self.reserve(consumer)
        written, looked = Event(), Event()
        with ThreadPoolExecutor() as pool:
            sender = pool.submit(self.write_in_a_transaction, written, looked)
            written.wait()
            try:
                self.assertEqual(consumer.exchange(acks([reservation]), 1), Exchange([True], []))
            finally:
                looked.set()
            self.assertFalse(sender.result())

    def write_in_a_transaction(self, written: Event, looked: Event) -> bool:
        """Return whether the consumer had to wait for the commit."""
        with closing(connections[self.alias]), transaction.atomic(using=self.alias):
            self.queue.write(b"b")
            written.set()
            return not looked.wait(3)
