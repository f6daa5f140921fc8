"""A history that cannot be written costs rows, but no mail and no second copy."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from unittest import mock

from django.db import OperationalError, transaction
from django.db.models import QuerySet

from mailqueue_backend.history import receivers, writer
from mailqueue_backend.history.models import Recipient

from .base import HISTORY, HistoryCase


class FailureContract(HistoryCase):
    @contextmanager
    def without_table(self) -> Iterator[list[str]]:
        """Use a table that does not exist, and collect what is logged."""
        with mock.patch.object(Recipient._meta, "db_table", "nothing"), self.assertLogs(HISTORY) as logs:
            yield logs.output

    @contextmanager
    def failing(self, *errors: Exception) -> Iterator[None]:
        """Fail in the first inserts."""
        insert, left = QuerySet.bulk_create, list(errors)

        def bulk_create(*args: object, **kwargs: object) -> object:
            if left:
                raise left.pop(0)
            return insert(*args, **kwargs)

        with mock.patch.object(QuerySet, "bulk_create", bulk_create):
            yield

    def test_missing_table_is_logged_once_and_the_mail_arrives_once(self) -> None:
        with self.without_table() as lines:
            for _ in range(10):
                self.send()
            report = self.drain()
        self.assertEqual((report.sent, len(self.stored), len(lines)), (10, 10, 1))
        self.assertIn("nothing", lines[0])
        self.assertIn('run "manage.py migrate"', lines[0])

    def test_message_of_a_transaction_is_kept_without_the_table(self) -> None:
        with self.without_table(), transaction.atomic(using=self.alias):
            self.send()
        self.assertEqual(self.drain().sent, 1)

    def test_message_that_is_set_aside_without_the_table(self) -> None:
        with self.without_table():
            receivers.record([self.event("a@example.com", id="0123456789ab")])
            receivers.end_drain()

    def test_end_of_a_failure_is_logged_by_the_second_drain(self) -> None:
        with self.without_table():
            self.send()
        with self.assertLogs(HISTORY) as logs:
            self.drain()
            self.drain()
        self.assertIn("is written again", logs.output[0])

    def test_lost_race_is_retried(self) -> None:
        with self.failing(OperationalError("deadlock")):
            self.record("a@example.com")
        self.assertEqual(self.statuses(), {"a@example.com": "accepted"})

    def test_failure_in_a_transaction_does_not_break_it(self) -> None:
        with transaction.atomic(using=self.alias):
            with self.without_table():
                self.record("a@example.com")
            self.record("b@example.com")
        self.assertEqual(self.statuses(), {"b@example.com": "accepted"})

    def test_database_that_is_slow_to_fail_is_left_alone_for_a_while(self) -> None:
        with (
            mock.patch.object(writer, "SLOW", -1),
            self.failing(OperationalError("time-out")),
            self.assertLogs(HISTORY),
        ):
            self.record("a@example.com")
            self.record("b@example.com")
        with mock.patch.object(receivers._writer, "_resume_at", 0.0):
            self.record("c@example.com")
        self.assertEqual(self.statuses(), {"c@example.com": "accepted"})

    def test_interrupt_leaves_no_transaction_open(self) -> None:
        insert = QuerySet.bulk_create

        def interrupted(*args: object, **kwargs: object) -> None:
            insert(*args, **kwargs)
            raise KeyboardInterrupt

        self.send()
        with mock.patch.object(QuerySet, "bulk_create", interrupted), self.assertRaises(KeyboardInterrupt):
            self.drain()
        self.assertFalse(self.connection.in_atomic_block)
        self.assertTrue(self.connection.autocommit)

    def test_a_thread_closes_the_connection_that_it_opens(self) -> None:
        def send() -> object:
            self.record("a@example.com")
            return self.connection.connection

        with ThreadPoolExecutor(1) as threads:
            self.assertIsNone(threads.submit(send).result())


class ServerFailureContract(FailureContract):
    """On database servers."""

    own_number: str
    kill: str

    def test_one_row_that_cannot_be_stored_does_not_affect_the_others(self) -> None:
        events = [self.event(f"{name}@example.com") for name in "abc"]
        events[1].attempts = 2**40
        with self.assertLogs(HISTORY) as logs:
            receivers.record(events)
        self.assertEqual(self.statuses(), {"a@example.com": "accepted", "c@example.com": "accepted"})
        self.assertEqual(len(logs.output), 1)

    def test_lost_connection_is_opened_again(self) -> None:
        self.record("a@example.com")
        with self.connection.cursor() as cursor:
            cursor.execute(self.own_number)
            kill = self.kill.format(*cursor.fetchone())
        with ThreadPoolExecutor(1) as threads:
            threads.submit(self.execute_and_close, kill).result()
        self.record("b@example.com")
        self.assertEqual(self.rows.count(), 2)

    def execute_and_close(self, sql: str) -> None:
        with closing(self.connection), self.connection.cursor() as cursor:
            cursor.execute(sql)

    def test_a_long_transaction_of_a_sender_does_not_stop_a_drain(self) -> None:
        with ThreadPoolExecutor(1) as threads, transaction.atomic(using=self.alias):
            self.send("a@example.com", headers={"Message-ID": "<a@example.com>"})
            threads.submit(self.record, "a@example.com").result(5)
        self.assertEqual(self.statuses(), {"a@example.com": "accepted"})
