"""The database queue: the contract on each database, and what only a database can promise or do wrong."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import timedelta
from threading import Event
from unittest import mock

from django.conf import settings
from django.core.management import call_command
from django.db import DatabaseError, OperationalError, connections, transaction
from django.db.models.signals import post_delete, pre_delete
from django.test import SimpleTestCase, TestCase, TransactionTestCase, modify_settings, override_settings, tag
from django.test.utils import CaptureQueriesContext

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues import database, open_queue
from mailqueue_backend.queues.base import Counts, MessageQueue
from mailqueue_backend.queues.database import border, statements
from mailqueue_backend.queues.database import queue as module
from mailqueue_backend.queues.database.models import Now, QueuedMessage
from tests import services
from tests.queue_contract import AFTER_SHORT, LONG, SHORT, QueueContract, TakersContract
from tests.takers import set_journal_mode


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
        statements._look.cache_clear()
        self.addCleanup(statements._look.cache_clear)

    def test_what_is_not_committed_yet_is_not_waited_for(self) -> None:
        self.queue.write(b"a")
        reservation = self.queue.reserve(LONG)
        written, looked = Event(), Event()
        with ThreadPoolExecutor() as pool:
            sender = pool.submit(self.write_in_a_transaction, written, looked)
            written.wait()
            try:
                self.assertEqual(self.queue.ack_and_reserve(reservation, LONG), (True, None))
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
            mock.patch.object(module, "BATCH_BYTES", 10),
            self.storing_due(Now(), Now(), None),
            self.assertRaises(QueueUnavailable),
        ):
            self.queue.write_many(b"a" * 8, b"b" * 8, b"c" * 8)
        self.assertEqual(len(self.queue), 0)

    def test_a_release_that_fails_changes_nothing(self) -> None:
        self.queue.write(b"a")
        reservation = self.reserve()
        with self.storing_due(None), self.assertRaises(QueueUnavailable):
            self.queue.release(reservation)
        self.assertTrue(self.queue.ack(reservation))

    def storing_due(self, *values):
        """Let the database itself refuse a row: ``due`` cannot be NULL."""
        return mock.patch.object(module, "in_seconds", side_effect=values)

    # statements

    def test_a_batch_is_cut_into_statements_of_limited_size(self) -> None:
        payloads = [b"1" * 400_000, b"2" * 400_000, b"3" * 400_000, b"4" * 3_000_000, b"5"]
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.write_many(*payloads)
        self.assertEqual(sum(query["sql"].startswith("INSERT") for query in queries), 4)
        self.assertTrue(self.queue.read_many(9) == payloads)

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
        reservation = self.reserve()
        with self.assertNumQueries(1, using=self.alias):
            self.assertTrue(self.queue.ack(reservation))

    def test_three_statements_lie_between_two_messages(self) -> None:
        self.queue.write_many(b"a", b"b")
        reservation = self.reserve()
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.ack_and_reserve(reservation, LONG)
        verbs = [query["sql"].split()[0] for query in queries]
        self.assertEqual([verb for verb in verbs if verb not in {"BEGIN", "COMMIT"}], ["DELETE", "SELECT", "UPDATE"])

    def test_a_list_of_the_queue_takes_the_index_order(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.queue.release(self.reserve())
        self.assertEqual([bytes(row.payload) for row in self.rows.all()], [b"b", b"a"])
        self.assertEqual(str(self.rows.first()), f"{self.queue.name} #{self.rows.first().pk}")

    # races

    def test_what_others_take_first_is_left_to_them(self) -> None:
        for take in (lambda: self.queue.reserve(LONG).payload, self.queue.read):
            with self.subTest(take):
                self.queue.write_many(b"a", b"b")
                with self.just_before("UPDATE", lambda: self.queue.reserve(LONG)):
                    self.assertEqual(take(), b"b")
                self.empty_table()

    def test_what_others_take_during_ack_and_reserve_is_left_to_them(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        reservation = self.reserve()
        with self.just_before("DELETE", lambda: self.queue.reserve(LONG)):
            acked, following = self.queue.ack_and_reserve(reservation, LONG)
        self.assertEqual((acked, following.payload), (True, b"c"))

    def test_when_others_take_all_that_was_seen_the_queue_is_looked_at_again(self) -> None:
        self.queue.write(b"a")
        with self.just_before("UPDATE", self.take_and_write_another):
            self.assertEqual(self.reserve().payload, b"b")

    def take_and_write_another(self) -> None:
        self.queue.read()
        self.queue.write(b"b")

    def test_when_others_take_all_each_time_the_queue_is_left_to_them(self) -> None:
        self.queue.write(b"a")
        with mock.patch.object(module, "claim", return_value=False) as claim:
            self.assertIsNone(self.queue.reserve(LONG))
        self.assertEqual(claim.call_count, 1 + module.LOOKS)

    def test_a_payload_is_not_read_when_others_take_it_before_it_is_deleted(self) -> None:
        self.queue.write(b"a")
        with (
            mock.patch.object(module, "READ_LEASE", SHORT),
            self.just_before("DELETE", lambda: None, self.wait_and_reserve),
        ):
            self.assertIsNone(self.queue.read())
        self.assertEqual(self.queue.counts().reserved, 1)

    def wait_and_reserve(self) -> None:
        time.sleep(AFTER_SHORT)
        self.assertEqual(self.reserve().deliveries, 2)

    def empty_table(self) -> None:
        self.rows.all().delete()

    def just_before(self, verb: str, *acts):
        """Let others act just before the first statement with this verb, the second, and so on."""
        left = list(acts)

        def wrapper(execute, sql, params, many, context):
            if left and sql.startswith(verb):
                left.pop(0)()
            return execute(sql, params, many, context)

        return self.connection.execute_wrapper(wrapper)

    # errors

    def test_what_the_database_undid_in_favour_of_others_is_done_again(self) -> None:
        for reason, cause in LOST_RACES:
            with self.subTest(reason), self.failing(reason, cause, times=border.ATTEMPTS - 1):
                self.queue.write(b"a")
                self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_what_is_undone_each_time_is_unavailable(self) -> None:
        for reason, cause in LOST_RACES:
            with (
                self.subTest(reason),
                self.failing(reason, cause, times=border.ATTEMPTS),
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
            reservation = self.reserve()
            with self.subTest(reason), self.failing(reason, cause, times=1, verb="UPDATE"):
                acked, following = self.queue.ack_and_reserve(reservation, LONG)
            self.assertEqual((acked, following.payload), (True, b"b"))
            self.queue.ack(following)

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
        with self.assertRaisesMessage(QueueUnavailable, f"The queue {self.queue.name} (database {self.alias}): "):
            self.queue.reserve(LONG)
        self.assertEqual(self.reserve().payload, b"a")

    def test_a_row_that_others_have_locked_is_not_waited_for(self) -> None:
        self.queue.write_many(b"a", b"b")
        locked, done = Event(), Event()
        with ThreadPoolExecutor(1) as pool:
            other = pool.submit(self.lock_first_row, locked, done)
            locked.wait(10)
            try:
                self.assertEqual(self.reserve().payload, b"b")
                self.assertIsNone(self.queue.reserve(LONG))
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
        for worded in (statements._look, statements._until):
            worded.cache_clear()
            self.addCleanup(worded.cache_clear)
        with mock.patch.object(Now, "as_postgresql", return_value=(now, [])):
            self.queue.write(b"a")
            self.assertIsNotNone(self.queue.reserve(600))
        with self.connection.cursor() as cursor:
            cursor.execute(f"SELECT due - {now} FROM {QueuedMessage._meta.db_table}")
            self.assertEqual(cursor.fetchone()[0], timedelta(seconds=600))

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
                self.queue.release(self.reserve(), delay=LONG)
                self.set_time_zone(reader)
                self.assertEqual(self.queue.counts(), Counts(waiting=2, due=1, deferred=1, reserved=0, dead=0))
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
        for call in (queue.read, queue.counts, lambda: queue.write(b"a")):
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
