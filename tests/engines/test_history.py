"""The history in each database."""

from __future__ import annotations

from django.core.management import call_command
from django.test import TestCase, TransactionTestCase

from .database.base import MariaDB, PostgreSQL, SQLite, needs_mariadb, needs_postgresql
from .history import failures, pruning, recording


class SQLiteTests(recording.RecordingContract, failures.FailureContract, pruning.PruningContract, TransactionTestCase):
    alias, databases = SQLite.alias, SQLite.databases


@needs_postgresql
class PostgreSQLTests(
    recording.RecordingContract, failures.ServerFailureContract, pruning.PruningContract, TransactionTestCase
):
    alias, databases = PostgreSQL.alias, PostgreSQL.databases
    own_number = "SELECT pg_backend_pid()"
    kill = "SELECT pg_terminate_backend({})"


@needs_mariadb
class MariaDBTests(
    recording.RecordingContract, failures.ServerFailureContract, pruning.PruningContract, TransactionTestCase
):
    alias, databases = MariaDB.alias, MariaDB.databases
    own_number = "SELECT CONNECTION_ID()"
    kill = "KILL {}"


class MigrationTests(TestCase):
    databases = "__all__"

    def test_the_migrations_match_the_model(self) -> None:
        call_command("makemigrations", "mailqueue_history", check=True, dry_run=True, verbosity=0)
