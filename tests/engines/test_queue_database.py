"""The queue in each database: the contract, and the promises and failures specific to databases."""

from __future__ import annotations

import logging
import re
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, nullcontext
from datetime import timedelta
from unittest import mock

import django
from django.core.management import call_command
from django.db import transaction
from django.test import TestCase, TransactionTestCase, override_settings, tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.database import rows, sql, transactions
from mailqueue_backend.queues.database.models import Now, QueuedMessage
from tests import services
from tests.engines.contract import QueueContract
from tests.engines.contract.base import LONG
from tests.engines.takers import set_journal_mode

from .database import DatabaseContract
from .database.base import MariaDB, PostgreSQL, SQLite, needs_mariadb, needs_postgresql
from .database.errors import ErrorContract
from .database.servers import ServerContract
from .database.skip_locked import WithoutSkipLocked
from .database.threads import ThreadContract
from .database.transactions import TransactionContract

# the contract inside the caller's transaction


class SQLiteTransactionTests(SQLite, QueueContract, TestCase):
    pass


@needs_postgresql
class PostgreSQLTransactionTests(PostgreSQL, QueueContract, TestCase):
    pass


@needs_mariadb
class MariaDBTransactionTests(MariaDB, QueueContract, TestCase):
    pass


# the contract without USE_TZ, in a time zone far from the server's


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


# servers without SKIP LOCKED


@needs_postgresql
class PostgreSQLWithoutSkipLockedTests(PostgreSQL, WithoutSkipLocked, TransactionTestCase):
    pass


@needs_mariadb
class MariaDBWithoutSkipLockedTests(MariaDB, WithoutSkipLocked, TransactionTestCase):
    pass


# the contract with real commits, and the promises beyond it


class SQLiteTests(SQLite, DatabaseContract, TransactionTestCase):
    def test_the_error_for_a_transaction_that_cannot_wait_names_the_cure(self) -> None:
        cure = '"transaction_mode": "IMMEDIATE"'
        if not hasattr(self.connection, "transaction_modes"):  # Django < 5.1
            cure = "transaction.on_commit()"
        # In the other modes, this reader would make the writer wait.
        self.addCleanup(set_journal_mode, self.alias, "DELETE")
        set_journal_mode(self.alias, "WAL")
        with transaction.atomic():
            self.assertEqual(self.rows.count(), 0)
            with ThreadPoolExecutor(1) as pool:
                pool.submit(self.write_and_close).result()
            with self.assertRaisesRegex(QueueUnavailable, rf"database is locked \(.*{re.escape(cure)}"):
                self.queue.write(b"a")

    def write_and_close(self) -> None:
        with closing(self.connection):
            self.queue.write(b"b")

    def test_the_error_for_a_lock_names_no_cure_where_there_is_none(self) -> None:
        for mode, atomic in (("immediate", transaction.atomic()), ("", nullcontext())):
            self.connection.ensure_connection()  # Django < 5.1: with this option, none could be opened
            options = {**self.connection.settings_dict["OPTIONS"], "transaction_mode": mode}
            with (
                self.subTest(mode),
                mock.patch.dict(self.connection.settings_dict, OPTIONS=options),
                atomic,
                self.failing(("database is locked",), None, times=transactions.ATTEMPTS),
                self.assertRaisesRegex(QueueUnavailable, "locked$"),
            ):
                self.queue.write(b"a")

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
    def test_a_lease_is_not_prolonged_by_the_hour_that_comes_twice(self) -> None:
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

    def test_an_error_does_not_show_the_contents_of_a_row(self) -> None:
        with self.storing_due(None), self.assertRaises(QueueUnavailable) as caught:
            self.queue.write(b"secret")
        self.assertIn(b"secret".hex(), str(caught.exception.__cause__))
        self.assertNotIn(b"secret".hex(), str(caught.exception))


@needs_postgresql
@services.needs("Django's pool", django.VERSION >= (5, 1) and services._importable("psycopg_pool"))
class PooledTests(PostgreSQL, TransactionContract, ThreadContract, ErrorContract, TransactionTestCase):
    """All connections come from a pool of one."""

    def setUp(self) -> None:
        self.connection.close()
        pool = {"min_size": 1, "max_size": 1, "timeout": 2}
        pooled = mock.patch.dict(self.connection.settings_dict["OPTIONS"], pool=pool)
        pooled.start()
        self.addCleanup(pooled.stop)
        self.addCleanup(self.connection.close_pool)
        self.addCleanup(self.connection.close)
        # The pool warns of each session that a drain leaves.
        quiet = mock.patch.object(logging.getLogger("psycopg.pool"), "disabled", True)
        quiet.start()
        self.addCleanup(quiet.stop)
        super().setUp()

    def test_threads_do_not_use_up_the_pool(self) -> None:
        for _ in range(3):
            with ThreadPoolExecutor(1) as threads:
                threads.submit(self.queue.write, b"a").result()
        self.assertEqual(self.queue.read_many(4), [b"a"] * 3)


@needs_mariadb
class MariaDBTests(MariaDB, ServerContract, DatabaseContract, TransactionTestCase):
    own_number = "SELECT CONNECTION_ID()"
    kill = "KILL {}"

    def test_clients_in_different_time_zones_share_one_clock(self) -> None:
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

    def test_the_largest_payload_that_is_accepted_can_be_stored(self) -> None:
        limit = self.queue.largest_payload
        payload = b"\0" * ((limit - self.queue.stored_size(b"")) // 2)
        self.assertEqual(self.queue.explain_size(payload), "")
        self.queue.write(payload)
        self.assertTrue(self.queue.read() == payload)
        self.assertIn(f"accepts at most {limit} (the server's max_allowed_packet", self.queue.explain_size(payload * 2))

    def test_the_size_of_a_small_message_costs_no_query(self) -> None:
        with self.assertNumQueries(0, using=self.alias):
            self.queue.explain_size(b"a" * sql.BATCH_BYTES)

    def test_the_migration_that_distinguishes_case_is_reversible(self) -> None:
        self.addCleanup(self.migrate, "0002")
        for name, found in (("0001", 1), ("0002", 0)):
            with self.subTest(name):
                self.migrate(name)
                self.queue.write(b"a")
                self.assertEqual(len(self.make_queue(self.queue.name.upper())), found)
                self.assertEqual(self.queue.read(), b"a")

    def migrate(self, name: str) -> None:
        call_command("migrate", "mailqueue_database", name, database=self.alias, verbosity=0)


class MigrationTests(TestCase):
    databases = "__all__"

    def test_the_migrations_match_the_model(self) -> None:
        call_command("makemigrations", "mailqueue_database", check=True, dry_run=True, verbosity=0)
