"""Errors: transactions that the database rolls back, and statements that it refuses."""

from __future__ import annotations

from django.db import DatabaseError, DataError, Error, OperationalError, transaction

from mailqueue_backend.errors import PayloadRefused, QueueUnavailable
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.database import transactions
from mailqueue_backend.queues.database.models import QueuedMessage
from tests.engines.contract.base import acks, payloads_of

from .base import OnDatabase


class PostgreSQLDeadlock(Exception):
    sqlstate = "40P01"


#: Arguments of Django's error, and its cause in the driver, when the database rolls back in favour of another client.
LOST_RACES = (
    (("database is locked",), None),
    ((1213, "Deadlock found when trying to get lock; try restarting transaction"), None),
    (("Verklemmung entdeckt",), PostgreSQLDeadlock()),
)


class ErrorContract(OnDatabase):
    """The promises about database errors."""

    def test_a_transaction_that_lost_a_race_is_repeated(self) -> None:
        for reason, cause in LOST_RACES:
            with self.subTest(reason), self.failing(reason, cause, times=transactions.ATTEMPTS - 1):
                self.queue.write(b"a")
                self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_a_transaction_that_loses_every_race_is_unavailable(self) -> None:
        for reason, cause in LOST_RACES:
            with (
                self.subTest(reason),
                self.failing(reason, cause, times=transactions.ATTEMPTS),
                self.assertRaises(QueueUnavailable),
            ):
                self.queue.write(b"a")
        self.assertEqual(len(self.queue), 0)

    def test_nothing_is_repeated_in_the_callers_transaction(self) -> None:
        for reason, cause in LOST_RACES:
            with (
                self.subTest(reason),
                transaction.atomic(using=self.alias),
                self.failing(reason, cause, times=1),
                self.assertRaises(QueueUnavailable),
            ):
                self.queue.write(b"a")
        self.assertEqual(len(self.queue), 0)

    def test_an_ack_that_was_rolled_back_with_the_claim_is_repeated(self) -> None:
        for reason, cause in LOST_RACES:
            self.queue.write_many(b"a", b"b")
            consumer = self.consumer()
            settlements = acks([self.reserve(consumer)])
            with self.subTest(reason), self.failing(reason, cause, times=1, verb="UPDATE"):
                answer = consumer.exchange(settlements, 1)
            self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True], [b"b"]))
            consumer.exchange(acks(answer.reservations))

    def test_a_drain_leaves_a_session_that_has_become_read_only(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        self.become_read_only()
        with self.assertRaises(QueueUnavailable):
            consumer.exchange(wanted=1)
        consumer.exchange()
        self.assertEqual(self.reserve(consumer).payload, b"a")

    def test_a_sender_keeps_a_session_that_can_be_used(self) -> None:
        self.connection.ensure_connection()
        before = self.connection.connection
        with self.failing(("disk full",), None, times=1), self.assertRaises(QueueUnavailable):
            self.queue.write(b"a")
        self.assertIs(self.connection.connection, before)

    def become_read_only(self) -> None:
        """Act like a server that was demoted: answer reads, and refuse writes."""
        statements = {
            "sqlite": "PRAGMA query_only = ON",
            "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
            "mysql": "SET SESSION TRANSACTION READ ONLY",
        }
        with self.connection.cursor() as cursor:
            cursor.execute(statements[self.connection.vendor])

    def failing(self, reason: tuple, cause: Exception | None, times: int, verb: str = "INSERT"):
        """Return a context manager that makes the next statements with this verb fail."""
        error = OperationalError(*reason)
        error.__cause__ = cause
        return self.raising(error, times, verb)

    def raising(self, error: Error, times: int, verb: str = "INSERT"):
        left = [error] * times

        def wrapper(execute, sql, params, many, context):
            if left and sql.startswith(verb):
                raise left.pop()
            return execute(sql, params, many, context)

        return self.connection.execute_wrapper(wrapper)

    def test_an_exchange_whose_payload_is_refused_changes_nothing(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        a, b = consumer.exchange(wanted=2).reservations
        settlements = [Settlement(a, "ack"), Settlement(b, "release", b"new")]
        for error in (DataError("too long"), OperationalError(1118, "too big"), OperationalError(2006, "gone away")):
            with self.subTest(error), self.raising(error, times=2):
                for _ in range(2):
                    with self.assertRaises(PayloadRefused) as caught:
                        consumer.exchange(settlements, 1)
                    self.assertEqual(caught.exception.receipt, b.receipt)
                self.check_counts(reserved=2)
        settlements[1] = Settlement(b, "leave")
        self.assertEqual(consumer.exchange(settlements).settled, [True, True])
        self.check_counts(reserved=1)

    def test_an_error_that_is_not_about_the_payload_does_not_refuse_it(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        settlements = [Settlement(self.reserve(consumer), "release", b"new")]
        with self.raising(OperationalError("disk full"), times=1), self.assertRaises(QueueUnavailable) as caught:
            consumer.exchange(settlements)
        self.assertNotIsInstance(caught.exception, PayloadRefused)
        self.assertEqual(consumer.exchange(settlements).settled, [True])
        self.assertEqual(self.queue.read(), b"new")

    def test_the_error_for_a_missing_table_names_the_command_that_creates_it(self) -> None:
        table = QueuedMessage._meta.db_table
        self.rename_table(table, "gone")
        self.addCleanup(self.rename_table, "gone", table)
        command = 'manage.py migrate mailqueue_database"'
        if self.alias != "default":
            command = f'manage.py migrate mailqueue_database --database={self.alias}"'
        with self.assertRaisesMessage(QueueUnavailable, command) as caught:
            self.queue.write(b"a")
        self.assertIsInstance(caught.exception.__cause__, DatabaseError)

    def rename_table(self, old: str, new: str) -> None:
        with self.connection.schema_editor() as editor:
            editor.alter_db_table(QueuedMessage, old, new)
