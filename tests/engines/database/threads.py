"""Connections of threads, and sending in an event loop."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from _thread import interrupt_main
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from unittest import mock

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues.database import sql
from mailqueue_backend.queues.database.threads import run_in_thread

from .base import OnDatabase

#: A payload whose size is checked.
LARGE = b"a" * (sql.BATCH_BYTES + 1)


class ThreadContract(OnDatabase):
    """The promises about threads and event loops."""

    def test_a_thread_gives_back_the_connection_that_it_opened(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self.assertTrue(pool.submit(self.queue.write, b"a").result())
            self.assertIsNone(pool.submit(lambda: self.connection.connection).result())
        self.assertEqual(self.queue.read(), b"a")

    def test_a_thread_gives_it_back_after_a_failed_write(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            with self.assertRaises(QueueUnavailable):
                pool.submit(self.write_fails).result()
            self.assertIsNone(pool.submit(lambda: self.connection.connection).result())

    def test_a_thread_keeps_a_connection_that_was_open(self) -> None:
        def write() -> bool:
            with closing(self.connection):
                self.connection.ensure_connection()
                before = self.connection.connection
                self.queue.write(b"a")
                return before is self.connection.connection

        with ThreadPoolExecutor(1) as pool:
            self.assertTrue(pool.submit(write).result())

    def test_a_thread_without_autocommit_keeps_its_transaction(self) -> None:
        def write() -> None:
            with closing(self.connection):
                self.queue.write(b"a")
                self.connection.commit()

        with self.without_autocommit(), ThreadPoolExecutor(1) as pool:
            pool.submit(write).result()
        self.assertEqual(self.queue.read(), b"a")

    def test_the_main_thread_keeps_its_connection(self) -> None:
        self.connection.close()
        self.queue.write(b"a")
        self.assertIsNotNone(self.connection.connection)

    def test_a_thread_gives_back_the_connection_that_it_opened_for_a_large_payload(self) -> None:
        with ThreadPoolExecutor(1) as pool:
            self.assertEqual(pool.submit(self.queue.explain_size, LARGE).result(), "")
            self.assertIsNone(pool.submit(lambda: self.connection.connection).result())

    def test_an_event_loop_can_send_a_large_payload(self) -> None:
        async def explain() -> str:
            return self.queue.explain_size(LARGE)

        self.assertEqual(asyncio.run(explain()), "")

    def test_an_event_loop_can_send(self) -> None:
        asyncio.run(self.write(b"a", b"b"))
        self.assertEqual(self.queue.read_many(3), [b"a", b"b"])

    def test_an_event_loop_can_send_without_autocommit(self) -> None:
        with self.without_autocommit():
            asyncio.run(self.write(b"a"))
        self.assertEqual(self.queue.read(), b"a")

    def test_an_error_is_raised_in_the_event_loop(self) -> None:
        with (
            mock.patch("mailqueue_backend.queues.database.sql.insert_due", return_value="INSERT INTO nothing"),
            self.assertRaises(QueueUnavailable),
        ):
            asyncio.run(self.write(b"a"))
        with self.settings(MAIL_QUEUE_DATABASE="none"), self.assertRaises(ConfigurationError):
            asyncio.run(self.write(b"a"))

    def test_an_interrupt_waits_for_the_thread(self) -> None:
        def write() -> None:
            time.sleep(0.05)
            interrupt_main()
            self.queue.write(b"a")

        # Django's test runner has a handler of its own.
        self.addCleanup(signal.signal, signal.SIGINT, signal.signal(signal.SIGINT, signal.default_int_handler))
        with self.assertRaises(KeyboardInterrupt):
            run_in_thread(self.alias, write)
        self.assertEqual(self.queue.read(), b"a")

    def test_an_event_loop_in_which_the_site_allows_database_calls_needs_no_thread(self) -> None:
        async def write() -> bool:
            with closing(self.connection):
                self.queue.write(b"a")
                return self.connection.connection is not None

        with mock.patch.dict(os.environ, DJANGO_ALLOW_ASYNC_UNSAFE="true"):
            self.assertTrue(asyncio.run(write()))

    async def write(self, *payloads: bytes) -> None:
        self.queue.write_many(*payloads)

    def write_fails(self) -> None:
        with self.storing_due(None):
            self.queue.write(b"a")

    def without_autocommit(self):
        """Make new connections begin a transaction with their first statement."""
        return mock.patch.dict(self.connection.settings_dict, AUTOCOMMIT=False)
