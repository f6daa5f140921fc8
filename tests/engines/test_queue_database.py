"""The database queue: the contract on each database, and what only a database can promise or do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from functools import partial
from threading import Event
from types import FrameType
from unittest import mock

from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.backends.base import base as django_base
from django.db.models.signals import post_delete, pre_delete
from django.test import SimpleTestCase, TestCase, TransactionTestCase, modify_settings, override_settings, tag
from django.test.utils import CaptureQueriesContext

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues import database, open_queue
from mailqueue_backend.queues.base import EXCHANGE_BYTES, Exchange, MessageQueue, Settlement
from mailqueue_backend.queues.database import consumer as consumers
from mailqueue_backend.queues.database import queue as module
from mailqueue_backend.queues.database import rows, sql, transactions
from mailqueue_backend.queues.database.models import Now, QueuedMessage
from mailqueue_backend.queues.database.transactions import close_torn_transaction
from tests import services
from tests.engines.queue_contract import LONG, SHORT, QueueContract, TakersContract, acks, payloads_of
from tests.engines.takers import set_journal_mode


class PostgreSQLDeadlock(Exception):
    sqlstate = "40P01"


#: What Django raises, and the driver's error behind it, when the database chose others.
LOST_RACES = (
    (("database is locked",), None),
    ((1213, "Deadlock found when trying to get lock; try restarting transaction"), None),
    (("Verklemmung entdeckt",), PostgreSQLDeadlock()),
)

needs_postgresql = services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
needs_mariadb = services.needs("MariaDB", "mariadb" in settings.DATABASES)


class OnDatabase:
    """Opens queues on one alias; its subclasses say which."""

    alias = ""

    def setUp(self) -> None:
        override = override_settings(MAIL_QUEUE_DATABASE=self.alias)
        override.enable()
        self.addCleanup(override.disable)
        # The contract's suspects are noticed at once.
        searching = mock.patch.object(consumers, "SEARCH_INTERVAL", 0)
        searching.start()
        self.addCleanup(searching.stop)
        super().setUp()

    def make_queue(self, name: str) -> MessageQueue:
        return database.Queue(name)

    @property
    def connection(self):
        return connections[self.alias]

    @property
    def rows(self):
        return QueuedMessage.objects.using(self.alias)


class SQLite(OnDatabase):
    alias = "default"
    databases = {"default"}


class PostgreSQL(OnDatabase):
    alias = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)


class MariaDB(OnDatabase):
    alias = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)


# the contract in a transaction of the caller's


class SQLiteTransactionTests(SQLite, QueueContract, TestCase):
    pass


@needs_postgresql
class PostgreSQLTransactionTests(PostgreSQL, QueueContract, TestCase):
    pass


@needs_mariadb
class MariaDBTransactionTests(MariaDB, QueueContract, TestCase):
    pass


# the contract without time zones, far from the server's


@override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo")
class SQLiteNaiveTests(SQLite, QueueContract, TestCase):
    pass


@needs_postgresql
@override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo")
class PostgreSQLNaiveTests(PostgreSQL, QueueContract, TestCase):
    pass


@needs_mariadb
@override_settings(USE_TZ=False, TIME_ZONE="Asia/Tokyo")
class MariaDBNaiveTests(MariaDB, QueueContract, TestCase):
    pass


# servers that cannot pass over locked rows, as MariaDB before 10.6


class WithoutSkipLocked(TakersContract):
    def setUp(self) -> None:
        super().setUp()
        features = type(connections[self.alias].features)
        without = mock.patch.object(features, "has_select_for_update_skip_locked", False)
        without.start()
        self.addCleanup(without.stop)
        rows.compile_select.cache_clear()
        self.addCleanup(rows.compile_select.cache_clear)

    def test_what_is_not_committed_yet_is_not_waited_for(self) -> None:
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
        """Tell whether others had to wait for the commit."""
        with closing(connections[self.alias]), transaction.atomic(using=self.alias):
            self.queue.write(b"b")
            written.set()
            return not looked.wait(3)


@needs_postgresql
class PostgreSQLWithoutSkipLockedTests(PostgreSQL, WithoutSkipLocked, TransactionTestCase):
    pass


@needs_mariadb
class MariaDBWithoutSkipLockedTests(MariaDB, WithoutSkipLocked, TransactionTestCase):
    pass


# the contract with real commits, and what goes beyond it


class DatabaseContract(QueueContract, TakersContract):
    """What a database promises on top."""

    # transactions

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

    def storing_due(self, *values):
        """Let the database itself refuse a row: ``due`` cannot be NULL."""
        left, now = list(values), sql.due_in(self.alias, 0).sql

        def wrapper(execute, statement, params, many, context):
            if statement.startswith("INSERT") and not left.pop(0):
                statement = statement.replace(now, "NULL")
            return execute(statement, params, many, context)

        return self.connection.execute_wrapper(wrapper)

    # statements

    def test_a_batch_is_cut_into_statements_of_limited_size(self) -> None:
        payloads = [b"1" * 400_000, b"2" * 400_000, b"3" * 400_000, b"4" * 3_000_000, b"5"]
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.write_many(*payloads)
        self.assertEqual(sum(query["sql"].startswith("INSERT") for query in queries), 4)
        self.assertTrue(self.queue.read_many(9) == payloads)

    def test_a_batch_is_cut_into_statements_of_limited_parameters(self) -> None:
        payloads = [b"%04d" % number for number in range(2 * sql.BATCH_ROWS + 1)]
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.write_many(*payloads)
        self.assertEqual(sum(query["sql"].startswith("INSERT") for query in queries), 3)
        with self.queue.consumer(LONG) as consumer:
            self.assertEqual(payloads_of(consumer.exchange(wanted=len(payloads)).reservations), payloads)

    def test_writing_one_batch_is_one_statement(self) -> None:
        for payloads in ([b"a"], [b"b", b"c"]):
            with self.subTest(payloads), self.assertNumQueries(1, using=self.alias):
                self.queue.write_many(*payloads)

    def test_counting_is_one_query(self) -> None:
        for count in (self.queue.counts, self.queue.__len__):
            with self.subTest(count.__name__), self.assertNumQueries(1, using=self.alias):
                count()

    def test_an_ack_is_one_statement_whoever_listens_to_deletions(self) -> None:
        def listener(**kwargs) -> None: ...

        for signal in (pre_delete, post_delete):
            signal.connect(listener)
            self.addCleanup(signal.disconnect, listener)
        self.queue.write(b"a")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        with self.assertNumQueries(1, using=self.alias):
            self.assertEqual(consumer.exchange(settlements).settled, [True])

    def test_an_exchange_of_nothing_is_no_statement(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer(SHORT)
        reservation = self.reserve(consumer)
        with self.assertNumQueries(0, using=self.alias):
            consumer.exchange()
            self.assertEqual(consumer.exchange([Settlement(reservation, "leave")]).settled, [True])
            consumer.close()

    def test_what_is_left_is_no_settlement_beside_others(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a, b = consumer.exchange(wanted=2).reservations
        answer = consumer.exchange([Settlement(a, "leave"), Settlement(b, "ack")])
        self.assertEqual(answer.settled, [True, True])
        self.check_counts(waiting=1, reserved=1)

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_three_statements_lie_between_two_groups(self) -> None:
        self.queue.write_many(*[b"%d" % number for number in range(9)])
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=4).reservations
        with CaptureQueriesContext(self.connection) as queries:
            self.assertEqual(len(consumer.exchange(acks(reservations), 4).reservations), 4)
        verbs = [query["sql"].split()[0] for query in queries]
        self.assertEqual([verb for verb in verbs if verb not in {"BEGIN", "COMMIT"}], ["DELETE", "SELECT", "UPDATE"])

    def test_an_extension_is_one_statement_for_each_exchange(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        reservations = [*consumer.exchange(wanted=2).reservations, self.reserve(consumer)]
        with self.assertNumQueries(2, using=self.alias):
            consumer.extend(reservations)

    def test_big_payloads_that_are_not_handed_out_are_not_read(self) -> None:
        payloads = [b"1" * EXCHANGE_BYTES, b"2" * EXCHANGE_BYTES]
        self.queue.write_many(*payloads)
        with CaptureQueriesContext(self.connection) as queries:
            self.assertTrue(payloads_of(self.consumer().exchange(wanted=2).reservations) == payloads[:1])
        self.assertEqual(sum(query["sql"].startswith("SELECT payload") for query in queries), 1)

    def test_a_list_of_the_queue_takes_the_index_order(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release")
        self.assertEqual([bytes(row.payload) for row in self.rows.all()], [b"b", b"a"])
        self.assertEqual(str(self.rows.first()), f"{self.queue.name} #{self.rows.first().pk}")

    def test_a_put_back_row_is_as_it_was(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        consumer = self.consumer()
        before = self.stored()
        suspect = self.reserve(consumer)
        self.settle(consumer, suspect, "put_back")
        for entry in self.queue.browse("due", 9):
            self.assertIsNotNone(consumer.take(entry))
        consumer.close()
        self.assertEqual(self.stored(), before)

    def stored(self) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, CAST(due AS CHAR(40)), deliveries FROM {QueuedMessage._meta.db_table} ORDER BY id"
            )
            return list(cursor.fetchall())

    # rows of the release before

    def test_what_older_code_has_left_is_delivered(self) -> None:
        for number, state in enumerate(({}, {"receipt": "f" * 32, "deliveries": 1}, {"deliveries": 0})):
            self.rows.create(queue=self.queue.name, due=Now(), payload=b"%d" % number, **state)
        self.rows.create(queue=self.queue.name, due=Now() + timedelta(seconds=LONG), payload=b"deferred")
        reserved = {"receipt": "e" * 32, "deliveries": 1}
        self.rows.create(queue=self.queue.name, due=Now() + timedelta(seconds=LONG), payload=b"reserved", **reserved)
        self.check_counts(waiting=4, due=3, deferred=1, reserved=1)
        consumer = self.consumer()
        suspect = self.reserve(consumer)
        self.assertEqual((suspect.payload, suspect.deliveries), (b"1", 2))
        answer = consumer.exchange(acks([suspect]), 3)
        self.assertEqual(payloads_of(answer.reservations), [b"0", b"2"])

    # suspects

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_suspects_are_searched_for_once_a_minute_while_there_is_other_work(self) -> None:
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
    def test_a_suspect_is_found_where_nothing_else_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        self.reserve_and_die()
        self.assertEqual(consumer.exchange(wanted=1), Exchange([], [], suspect_waiting=True))
        self.assertEqual(payloads_of(consumer.exchange(settlements, 2).reservations), [b"b"])

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_a_suspect_that_dies_meanwhile_is_found_by_an_idle_consumer(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer()
        consumer.exchange(acks([self.reserve(consumer)]), 1)
        self.queue.write(b"b")
        self.reserve_and_die()
        self.assertEqual(payloads_of(consumer.exchange(wanted=2).reservations), [b"b"])

    # take

    def test_what_an_exchange_has_reserved_unseen_is_held_before_a_message_is_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"b")
        with self.queue.consumer(LONG) as consumer:
            self.lose_answers(consumer)
            with self.assertRaises(QueueUnavailable):
                consumer.exchange(wanted=1)
            taken = consumer.take(entry)
            self.assertEqual(payloads_of(list(consumer.held.values())), [b"a", b"b"])
            self.assertEqual(consumer.exchange(acks([taken])).settled, [True])
        self.check_counts(waiting=1)

    # races

    def test_what_others_take_first_is_left_to_them(self) -> None:
        other = self.consumer()
        for verb, take in (("UPDATE", lambda: self.reserve().payload), ("DELETE", self.queue.read)):
            with self.subTest(verb):
                self.queue.write_many(b"a", b"b")
                with self.just_before(verb, lambda: other.exchange(wanted=1)):
                    self.assertEqual(take(), b"b")
                self.empty_table()

    def test_of_a_group_the_rest_is_claimed(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        other, consumer = self.consumer(), self.consumer()
        with self.just_before("UPDATE", lambda: other.exchange(wanted=1)):
            answer = consumer.exchange(wanted=2)
        self.assertEqual([(each.payload, each.deliveries) for each in answer.reservations], [(b"b", 1)])
        self.assertEqual(payloads_of(list(other.held.values())), [b"a"])
        self.check_counts(waiting=1, reserved=2)

    def test_when_others_take_all_that_was_seen_the_queue_is_looked_at_again(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        with self.just_before("UPDATE", self.take_and_write_another):
            answer = consumer.exchange(settlements, 1)
        self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True], [b"c"]))

    def take_and_write_another(self) -> None:
        self.rows.filter(payload=b"b").delete()
        self.queue.write(b"c")

    def test_when_others_take_all_each_time_the_queue_is_left_to_them(self) -> None:
        self.queue.write(b"a")
        table = QueuedMessage._meta.db_table
        fails = f"UPDATE {table} SET receipt = %s WHERE id = -1 AND deliveries = %s AND queue = %s AND id = %s"
        with mock.patch.object(sql, "claim", return_value=sql.CompiledSQL(fails)) as claim:
            self.assertEqual(self.consumer().exchange(wanted=1).reservations, [])
        self.assertEqual(claim.call_count, consumers.SELECTS)

    def test_when_others_read_all_each_time_the_queue_is_left_to_them(self) -> None:
        self.queue.write(b"a")
        fails = (
            f"DELETE FROM {QueuedMessage._meta.db_table} WHERE id = -1 AND deliveries = %s AND queue = %s AND id = %s"
        )
        with mock.patch.object(sql, "delete_unclaimed", return_value=fails) as delete:
            self.assertIsNone(self.queue.read())
        self.assertEqual(delete.call_count, module.SELECTS)

    def test_a_big_payload_that_others_read_meanwhile_is_passed_over(self) -> None:
        self.queue.write_many(b"a" * EXCHANGE_BYTES, b"b")
        with self.just_before("SELECT payload", self.rows.filter(queue=self.queue.name).earliest("pk").delete):
            self.assertEqual(payloads_of(self.consumer().exchange(wanted=2).reservations), [b"b"])

    def empty_table(self) -> None:
        self.rows.all().delete()

    def just_before(self, verb: str, *acts):
        """Let others act just before the first statement with this verb, the second, and so on."""
        left = list(acts)

        def wrapper(execute, sql, params, many, context):
            if left and sql.startswith(verb) and "id = -1" not in sql:
                left.pop(0)()
            return execute(sql, params, many, context)

        return self.connection.execute_wrapper(wrapper)

    # threads

    def test_threads_see_the_queue_outside_of_transactions(self) -> None:
        self.assertTrue(self.queue.parallel)
        with transaction.atomic(using=self.alias):
            self.assertFalse(self.queue.parallel)

    # interrupts

    def test_a_connection_that_cannot_be_cleaned_is_closed(self) -> None:
        self.queue.write(b"a")
        with mock.patch.object(self.connection, "rollback", side_effect=OperationalError("gone")):
            close_torn_transaction(self.alias)
        self.assertIsNone(self.connection.connection)
        self.assertEqual(self.queue.read(), b"a")

    @tag("slow")
    def test_an_interrupt_inside_django_leaves_no_transaction_open(self) -> None:
        line = 0
        interrupted = True
        while interrupted:
            line += 1
            self.empty()
            self.queue.write_many(b"a", b"b", b"c", b"d", b"e")
            consumer = self.queue.consumer(LONG)
            a, b = consumer.exchange(wanted=2).reservations
            settlements = [Settlement(a, "ack"), Settlement(b, "release")]
            exchange = partial(consumer.exchange, settlements, 2)
            interrupted = self.interrupt(line, exchange, transaction.__file__, django_base.__file__)
            consumer.close()
            self.assertEqual((self.connection.in_atomic_block, self.connection.get_autocommit()), (False, True), line)
            with ThreadPoolExecutor(1) as pool:
                left = sorted(pool.submit(self.committed_payloads).result())
            self.assertIn(left, ([b"a", b"b", b"c", b"d", b"e"], [b"b", b"c", b"d", b"e"]), line)
            self.check_counts(waiting=len(left))
        self.assertGreater(line, 100)

    def interrupt(self, line: int, act: Callable[[], object], *more_files: str) -> bool:
        """Raise KeyboardInterrupt at the n-th line of the queue, or of more files, if there is one."""
        files = (database.__path__[0], *more_files)

        def trace(frame: FrameType, event: str, argument: object):
            nonlocal line
            # Django takes a lock there; a signal handler does not run between its lines, as a trace function does.
            if not frame.f_code.co_filename.startswith(files) or frame.f_code.co_name == "allow_thread_sharing":
                return None
            line -= event == "line"
            if line == 0 and event == "line":
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        except (KeyboardInterrupt, QueueUnavailable):
            # In psycopg's commit it becomes an error: Django cannot switch autocommit on again.
            return True
        finally:
            sys.settrace(before)
        return False

    def committed_payloads(self) -> list[bytes]:
        with closing(self.connection):
            return [bytes(row.payload) for row in self.rows.filter(queue=self.queue.name)]

    def test_an_interrupted_exchange_leaves_the_callers_transaction_as_it_was(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        for line in range(1, 200):
            with transaction.atomic(using=self.alias):
                self.interrupt(line, partial(consumer.exchange, wanted=1))
                self.assertEqual((len(self.connection.savepoint_ids), self.connection.needs_rollback), (0, False), line)
                consumer.close()
            self.check_counts(waiting=2)

    # errors

    def test_what_the_database_undid_in_favour_of_others_is_done_again(self) -> None:
        for reason, cause in LOST_RACES:
            with self.subTest(reason), self.failing(reason, cause, times=transactions.ATTEMPTS - 1):
                self.queue.write(b"a")
                self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_what_is_undone_each_time_is_unavailable(self) -> None:
        for reason, cause in LOST_RACES:
            with (
                self.subTest(reason),
                self.failing(reason, cause, times=transactions.ATTEMPTS),
                self.assertRaises(QueueUnavailable),
            ):
                self.queue.write(b"a")
        self.assertEqual(len(self.queue), 0)

    def test_nothing_is_done_again_in_a_transaction_of_the_callers(self) -> None:
        for reason, cause in LOST_RACES:
            with (
                self.subTest(reason),
                transaction.atomic(using=self.alias),
                self.failing(reason, cause, times=1),
                self.assertRaises(QueueUnavailable),
            ):
                self.queue.write(b"a")
        self.assertEqual(len(self.queue), 0)

    def test_an_ack_that_was_undone_with_the_claim_is_done_again(self) -> None:
        for reason, cause in LOST_RACES:
            self.queue.write_many(b"a", b"b")
            consumer = self.consumer()
            settlements = acks([self.reserve(consumer)])
            with self.subTest(reason), self.failing(reason, cause, times=1, verb="UPDATE"):
                answer = consumer.exchange(settlements, 1)
            self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True], [b"b"]))
            consumer.exchange(acks(answer.reservations))

    def failing(self, reason: tuple, cause: Exception | None, times: int, verb: str = "INSERT"):
        """Let the next statements with this verb fail."""
        failures = [OperationalError(*reason) for _ in range(times)]

        def wrapper(execute, sql, params, many, context):
            if failures and sql.startswith(verb):
                raise failures.pop() from cause
            return execute(sql, params, many, context)

        return self.connection.execute_wrapper(wrapper)

    def test_a_missing_table_is_explained_by_the_command_that_makes_it(self) -> None:
        with self.connection.schema_editor() as editor:
            editor.delete_model(QueuedMessage)
        self.addCleanup(self.create_table)
        command = 'manage.py migrate mailqueue_database"'
        if self.alias != "default":
            command = f'manage.py migrate mailqueue_database --database={self.alias}"'
        with self.assertRaisesMessage(QueueUnavailable, command) as caught:
            self.queue.write(b"a")
        self.assertIsInstance(caught.exception.__cause__, DatabaseError)

    def create_table(self) -> None:
        with self.connection.schema_editor() as editor:
            editor.create_model(QueuedMessage)


class ServerContract:
    """What a database server can do to its clients."""

    def test_a_lost_connection_is_unavailable_once(self) -> None:
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

    def test_a_row_that_others_have_locked_is_not_waited_for(self) -> None:
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


class SQLiteTests(SQLite, DatabaseContract, TransactionTestCase):
    @tag("slow")
    def test_processes_get_each_message_once_in_each_journal_mode(self) -> None:
        self.addCleanup(set_journal_mode, self.alias, "DELETE")
        for mode in ("TRUNCATE", "PERSIST", "WAL"):
            with self.subTest(mode):
                set_journal_mode(self.alias, mode)
                self.check_processes(mode)


@needs_postgresql
class PostgreSQLTests(PostgreSQL, ServerContract, DatabaseContract, TransactionTestCase):
    own_number = "SELECT pg_backend_pid()"
    kill = "SELECT pg_terminate_backend({})"

    @override_settings(USE_TZ=False, TIME_ZONE="Europe/Paris")
    def test_a_lease_is_no_longer_in_the_hour_that_comes_twice(self) -> None:
        now = "TIMESTAMPTZ '2026-10-25 00:25:00+00'"
        for compiled in (rows.compile_select, sql.due_in, sql.claim, sql.insert_due):
            compiled.cache_clear()
            self.addCleanup(compiled.cache_clear)
        with mock.patch.object(Now, "as_postgresql", return_value=(now, [])):
            self.queue.write(b"a")
            consumer = self.queue.consumer(600)
            self.reserve(consumer)
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT due - {now} FROM {QueuedMessage._meta.db_table}")
            self.assertEqual(cursor.fetchone()[0], timedelta(seconds=600))
            consumer.close()
            cursor.execute(f"SELECT due - {now} FROM {QueuedMessage._meta.db_table}")
            self.assertEqual(cursor.fetchone()[0], timedelta(0))

    def test_an_error_does_not_show_what_is_in_a_row(self) -> None:
        with self.storing_due(None), self.assertRaises(QueueUnavailable) as caught:
            self.queue.write(b"secret")
        self.assertIn(b"secret".hex(), str(caught.exception.__cause__))
        self.assertNotIn(b"secret".hex(), str(caught.exception))


@needs_mariadb
class MariaDBTests(MariaDB, ServerContract, DatabaseContract, TransactionTestCase):
    own_number = "SELECT CONNECTION_ID()"
    kill = "KILL {}"

    def test_clients_in_other_time_zones_have_the_same_clock(self) -> None:
        self.addCleanup(self.set_time_zone, "+00:00")
        for writer, reader in (("+09:00", "-09:00"), ("-09:00", "+09:00")):
            with self.subTest(writer=writer):
                self.set_time_zone(writer)
                self.queue.write_many(b"a", b"b")
                consumer = self.consumer()
                self.settle(consumer, self.reserve(consumer), "release", None, LONG)
                self.set_time_zone(reader)
                self.check_counts(waiting=2, due=1, deferred=1)
                self.queue.read_many(2)

    def set_time_zone(self, time_zone: str) -> None:
        with self.connection.cursor() as cursor:
            cursor.execute("SET time_zone = %s", [time_zone])


# the app


class AppTests(SimpleTestCase):
    def test_without_the_app_the_error_says_what_to_add(self) -> None:
        with (
            modify_settings(INSTALLED_APPS={"remove": "mailqueue_backend.queues.database"}),
            self.assertRaises(ConfigurationError) as caught,
        ):
            open_queue("mail")
        self.assertIn('add "mailqueue_backend.queues.database" to INSTALLED_APPS', str(caught.exception))
        self.assertIn("manage.py migrate", str(caught.exception))

    def test_the_module_has_a_queue_and_no_other_surprise(self) -> None:
        self.assertIs(database.Queue, module.Queue)
        self.assertFalse(hasattr(database, "Pueue"))

    @override_settings(MAIL_QUEUE_DATABASE="nowhere")
    def test_an_alias_that_does_not_exist_is_a_wrong_setting(self) -> None:
        queue = database.Queue("mail")
        exchange = queue.consumer(LONG).exchange
        for call in (queue.read, queue.counts, lambda: queue.write(b"a"), lambda: exchange(wanted=1)):
            with self.assertRaisesMessage(ConfigurationError, "MAIL_QUEUE_DATABASE = 'nowhere'"):
                call()

    def test_the_app_can_be_imported_before_there_are_models_or_settings(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        command = [sys.executable, "-W", "error", "-c", "import mailqueue_backend.queues.database.apps"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))


class MigrationTests(TestCase):
    databases = "__all__"

    def test_the_migrations_match_the_model(self) -> None:
        call_command("makemigrations", "mailqueue_database", check=True, dry_run=True, verbosity=0)
