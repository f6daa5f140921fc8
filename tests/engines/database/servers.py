"""Database servers: lost connections, and rows locked by other clients."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from threading import Event

from django.db import transaction

from mailqueue_backend.errors import QueueUnavailable
from tests.engines.contract.base import payloads_of

from .base import OnDatabase


class ServerContract(OnDatabase):
    """The promises on a database server."""

    def test_a_lost_connection_raises_once(self) -> None:
        self.queue.write(b"a")
        self.kill_connection()
        consumer = self.consumer()
        with self.assertRaisesMessage(QueueUnavailable, f"The queue {self.queue.name} (database {self.alias}): "):
            consumer.exchange(wanted=1)
        self.assertEqual(consumer.exchange(wanted=1).reservations, [])
        self.assertEqual(self.reserve(consumer).payload, b"a")

    def test_a_consumer_whose_connection_is_lost_can_be_closed(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        self.reserve(consumer)
        self.kill_connection()
        with self.assertRaises(QueueUnavailable):
            consumer.close()
        consumer.close()
        self.check_counts(waiting=2)

    def test_locked_rows_are_skipped_without_waiting(self) -> None:
        self.queue.write_many(b"a", b"b")
        locked, done = Event(), Event()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(self.lock_first_row, locked, done)
            locked.wait(10)
            try:
                self.assertEqual(payloads_of(self.consumer().exchange(wanted=2).reservations), [b"b"])
                self.assertEqual(self.consumer().exchange(wanted=2).reservations, [])
                self.assertIsNone(self.queue.read())
            finally:
                done.set()
        other.result()
        self.assertEqual(self.queue.read(), b"a")

    def lock_first_row(self, locked: Event, done: Event) -> None:
        with closing(self.connection), transaction.atomic(using=self.alias):
            self.rows.select_for_update().get(pk=self.rows.first().pk)
            locked.set()
            done.wait(10)

    def kill_connection(self) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute(self.own_number)
            kill = self.kill.format(*cursor.fetchone())
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.execute_and_close, kill).result()

    def execute_and_close(self, sql: str) -> None:
        with closing(self.connection), self.connection.cursor() as cursor:
            cursor.execute(sql)
