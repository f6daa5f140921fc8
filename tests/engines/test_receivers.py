"""Receivers of message_queued in the caller's transaction."""

from __future__ import annotations

from typing import Any

from django.db import DatabaseError, connections, transaction
from django.test import TransactionTestCase

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.signals import message_queued
from tests.cases import message
from tests.engines.database.base import OnDatabase, PostgreSQL, SQLite, needs_postgresql


class ReceiverTestCase(OnDatabase):
    def send(self, receiver: Any) -> None:
        """Queue a message with this receiver."""
        backend = QueuedEmailBackend()
        backend.que = self.queue
        message_queued.connect(receiver)
        try:
            backend.send_messages([message()])
        finally:
            message_queued.disconnect(receiver)

    def query_in_vain(self, **kwargs: Any) -> None:
        with connections[self.alias].cursor() as cursor:
            cursor.execute("SELECT * FROM nowhere")


class RollbackContract(ReceiverTestCase):
    def test_signal_is_sent_before_a_rollback_and_the_message_is_gone(self) -> None:
        received: list[Any] = []
        with self.assertRaises(ZeroDivisionError), transaction.atomic(using=self.alias):
            self.send(lambda **kwargs: received.append(kwargs["id"]))
            raise ZeroDivisionError
        self.assertEqual((len(received), len(self.queue)), (1, 0))

    def test_on_commit_acts_only_on_what_is_committed(self) -> None:
        done: list[Any] = []

        def receiver(**kwargs: Any) -> None:
            transaction.on_commit(lambda: done.append(kwargs["id"]), using=self.alias)

        with self.assertRaises(ZeroDivisionError), transaction.atomic(using=self.alias):
            self.send(receiver)
            raise ZeroDivisionError
        self.assertEqual(done, [])
        with transaction.atomic(using=self.alias):
            self.send(receiver)
        self.assertEqual((len(done), len(self.queue)), (1, 1))

    def test_query_that_fails_in_a_savepoint_leaves_the_transaction_usable(self) -> None:
        def receiver(**kwargs: Any) -> None:
            with transaction.atomic(using=self.alias):
                self.query_in_vain()

        with self.assertLogs("mailqueue_backend.delivery", "ERROR"), transaction.atomic(using=self.alias):
            self.send(receiver)
            self.assertEqual(len(self.queue), 1)
        self.assertEqual(len(self.queue), 1)


class SQLiteTests(SQLite, RollbackContract, TransactionTestCase):
    pass


@needs_postgresql
class PostgreSQLTests(PostgreSQL, RollbackContract, TransactionTestCase):
    def test_query_that_fails_without_a_savepoint_ends_the_transaction(self) -> None:
        with (
            self.assertRaisesMessage(DatabaseError, "current transaction is aborted"),
            self.assertLogs("mailqueue_backend.delivery", "ERROR"),
            transaction.atomic(using=self.alias),
        ):
            self.send(self.query_in_vain)
            self.rows.count()
