"""Transactions: the caller's, and the queue's own."""

from __future__ import annotations

from unittest import mock

from django.db import transaction

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues.base import Exchange, Settlement
from mailqueue_backend.queues.database import sql
from mailqueue_backend.queues.database.models import Now

from .base import OnDatabase


class TransactionContract(OnDatabase):
    """The promises about transactions."""

    def test_mail_is_queued_if_the_transaction_commits(self) -> None:
        with transaction.atomic(using=self.alias):
            self.queue.write(b"a")
        self.assertEqual(self.queue.read(), b"a")

    def test_mail_is_not_queued_if_the_transaction_is_rolled_back(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic(using=self.alias):
            self.queue.write(b"a")
            raise ZeroDivisionError
        self.assertEqual(len(self.queue), 0)

    def test_a_failed_write_does_not_poison_the_transaction(self) -> None:
        with transaction.atomic(using=self.alias):
            self.queue.write(b"before")
            with self.storing_due(None), self.assertRaises(QueueUnavailable):
                self.queue.write(b"a")
            self.queue.write(b"after")
        self.assertEqual(self.queue.read_many(3), [b"before", b"after"])

    def test_a_batch_of_several_statements_is_stored_whole_or_not_at_all(self) -> None:
        with (
            mock.patch.object(sql, "BATCH_BYTES", 10),
            self.storing_due(Now(), Now(), None),
            self.assertRaises(QueueUnavailable),
        ):
            self.queue.write_many(b"a" * 8, b"b" * 8, b"c" * 8)
        self.assertEqual(len(self.queue), 0)

    def test_an_exchange_that_fails_changes_nothing(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a, b = consumer.exchange(wanted=2).reservations
        settlements = [Settlement(a, "ack"), Settlement(b, "release")]
        with self.storing_due(None), self.assertRaises(QueueUnavailable):
            consumer.exchange(settlements, 1)
        self.check_counts(waiting=1, reserved=2)
        self.assertEqual(consumer.exchange(settlements, 1), Exchange([True, True], []))
        self.check_counts(waiting=2)

    def test_the_queue_is_parallel_only_outside_a_transaction(self) -> None:
        self.assertTrue(self.queue.parallel)
        with transaction.atomic(using=self.alias):
            self.assertFalse(self.queue.parallel)

    def test_a_drain_is_refused_in_a_transaction(self) -> None:
        self.queue.check_can_drain()
        with transaction.atomic(using=self.alias), self.assertRaisesMessage(ConfigurationError, "non_atomic_requests"):
            self.queue.check_can_drain()

    def test_a_drain_is_refused_without_autocommit(self) -> None:
        transaction.set_autocommit(False, using=self.alias)
        self.addCleanup(transaction.set_autocommit, True, using=self.alias)
        with self.assertRaisesMessage(ConfigurationError, "set_autocommit(False)"):
            self.queue.check_can_drain()

    def test_a_drain_is_refused_if_the_next_connection_has_no_autocommit(self) -> None:
        with (
            mock.patch.dict(self.connection.settings_dict, AUTOCOMMIT=False),
            self.assertRaisesMessage(ConfigurationError, f"remove AUTOCOMMIT from DATABASES['{self.alias}']"),
        ):
            self.queue.check_can_drain()

    def storing_due(self, *values):
        """Make the database refuse each INSERT whose turn in ``values`` is None, by storing NULL as ``due``."""
        left, now = list(values), sql.due_in(self.alias, 0).sql

        def wrapper(execute, statement, params, many, context):
            if statement.startswith("INSERT") and not left.pop(0):
                statement = statement.replace(now, "NULL")
            return execute(statement, params, many, context)

        return self.connection.execute_wrapper(wrapper)
