"""The checks of the database queue: alias, router, table, and the set-up of SQLite."""

from __future__ import annotations

import sqlite3
import tempfile
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import TestCase, mock, skipIf, skipUnless

import django
from django.core.management import call_command
from django.db import OperationalError, connection, connections
from django.test import SimpleTestCase, TransactionTestCase, override_settings

from mailqueue_backend.checks import (
    check_alias,
    check_router,
    check_sqlite_journal,
    check_sqlite_transactions,
    check_table,
)
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.database.models import QueuedMessage

ROUTERS = [f"{__name__}.Forbidding"]


class Forbidding:
    """A router of a site that keeps the table out of all databases."""

    def allow_migrate(self, db: str, app_label: str, **hints: Any) -> bool | None:
        return False if app_label == "mailqueue_database" else None


class AliasTests(SimpleTestCase):
    def test_an_alias_in_databases_is_right(self) -> None:
        self.assertEqual([*check_alias(), *check_router()], [])

    @override_settings(MAIL_QUEUE_DATABASE="mial")
    def test_an_unknown_alias_is_reported_with_those_that_there_are(self) -> None:
        (problem,) = check_alias()
        self.assertEqual(problem.id, "mailqueue_backend.E004")
        self.assertIn("MAIL_QUEUE_DATABASE = 'mial'", problem.msg)
        self.assertIn("Write one of: default", problem.hint)
        others = (check_router, check_table, check_sqlite_transactions, check_sqlite_journal)
        self.assertEqual([found for check in others for found in check(databases=["mial"])], [])

    def test_the_alias_does_not_matter_to_other_queues(self) -> None:
        for wrong in ({"QUEUE_BACKEND": "redisd"}, {"INSTALLED_APPS": ["mailqueue_backend"]}):
            with self.subTest(wrong), override_settings(MAIL_QUEUE_DATABASE="mial", **wrong):
                self.assertEqual(check_alias(), [])

    @override_settings(DATABASE_ROUTERS=ROUTERS)
    def test_a_router_that_forbids_the_table_is_reported(self) -> None:
        (problem,) = check_router()
        self.assertEqual(problem.id, "mailqueue_backend.W006")
        self.assertIn('allow_migrate() return True for the app label "mailqueue_database"', problem.hint)


class TableTests(TransactionTestCase):
    databases = "__all__"  # Django's checks of models ask them

    def drop_table(self) -> None:
        with connection.schema_editor() as editor:
            editor.delete_model(QueuedMessage)
        self.addCleanup(self.create_table)

    def create_table(self) -> None:
        with connection.schema_editor() as editor:
            editor.create_model(QueuedMessage)

    def test_a_table_that_exists_is_right(self) -> None:
        self.assertEqual(check_table(databases=["default"]), [])

    def test_a_missing_table_is_a_warning_with_the_command(self) -> None:
        self.drop_table()
        (problem,) = check_table(databases=["default"])
        self.assertEqual((problem.id, problem.is_serious()), ("mailqueue_backend.W007", False))
        self.assertIn('"manage.py migrate mailqueue_database"', problem.hint)

    def test_the_table_is_looked_up_with_the_option_database_only(self) -> None:
        self.drop_table()
        for databases, warned in ((["default"], True), (None, False)):
            with mock.patch("sys.stderr") as stderr:
                call_command("check", databases=databases, stdout=StringIO())
            said = "".join(call.args[0] for call in stderr.write.call_args_list)
            self.assertEqual("mailqueue_backend.W007" in said, warned, said)

    def test_advice_is_given_with_the_option_deploy_only(self) -> None:
        for options, advised in (({}, False), ({"databases": ["default"]}, False), ({"deploy": True}, True)):
            with mock.patch("sys.stderr") as stderr:
                call_command("check", tags=["mailqueue"], stdout=StringIO(), **options)
            said = "".join(call.args[0] for call in stderr.write.call_args_list)
            self.assertEqual("mailqueue_backend.W009" in said, advised, said)

    def test_a_database_that_cannot_be_asked_is_a_warning(self) -> None:
        error = OperationalError("connection refused\nDETAIL: more")
        with mock.patch.object(connection, "introspection") as introspection:
            introspection.table_names.side_effect = error
            (problem,) = check_table(databases=["default"])
        self.assertIn("cannot be looked up: connection refused.", problem.msg)

    @override_settings(DATABASE_ROUTERS=ROUTERS)
    def test_a_table_that_a_router_forbids_is_no_case_for_migrate(self) -> None:
        self.drop_table()
        (problem,) = check_table(databases=["default"])
        self.assertTrue(problem.hint.startswith("Let its allow_migrate() return True"), problem.hint)
        with self.assertRaisesMessage(QueueUnavailable, "a router in DATABASE_ROUTERS does not let migrate"):
            open_queue("MAIL_QUEUE").write(b"a")


class SQLiteTests(TestCase):
    """Not a SimpleTestCase, which forbids connections to a database that the settings of the tests do not name."""

    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "mail.sqlite3")
        self.use("DELETE")

    def use(self, journal: str) -> None:
        with closing(sqlite3.connect(self.path)) as file:
            file.execute(f"PRAGMA journal_mode={journal}")
            file.execute("CREATE TABLE IF NOT EXISTS a (b)")

    def problems(self, check: Any, **options: Any) -> list[str]:
        """Return the ids of the problems of a site whose queue is in the file."""
        mail = connections["default"].copy("mail")
        mail.settings_dict.update(NAME=str(self.path), OPTIONS=options)
        connections["mail"] = mail
        settings = mock.patch.dict(connections.settings, mail=mail.settings_dict)
        try:
            with settings, override_settings(MAIL_QUEUE_DATABASE="mail"):
                return [problem.id for problem in check()]
        finally:
            mail.close()
            del connections["mail"]

    @skipUnless(django.VERSION >= (5, 1), "transaction_mode came with Django 5.1")
    def test_transactions_that_do_not_lock_at_once_are_reported(self) -> None:
        for mode, found in ((None, 1), ("DEFERRED", 1), ("IMMEDIATE", 0), ("immediate", 0), ("EXCLUSIVE", 0)):
            with self.subTest(mode):
                options = {"transaction_mode": mode} if mode else {}
                ids = self.problems(check_sqlite_transactions, **options)
                self.assertEqual(ids, ["mailqueue_backend.W008"] * found)

    @skipIf(django.VERSION >= (5, 1), "transaction_mode came with Django 5.1")
    def test_transactions_are_not_reported_where_nothing_can_be_done(self) -> None:
        self.assertEqual(self.problems(check_sqlite_transactions), [])

    def test_a_journal_other_than_wal_is_reported(self) -> None:
        for journal, ids in (("DELETE", ["mailqueue_backend.W009"]), ("WAL", [])):
            with self.subTest(journal):
                self.use(journal)
                self.assertEqual(self.problems(check_sqlite_journal), ids)

    def test_a_file_that_does_not_exist_is_not_created(self) -> None:
        self.path.unlink()
        self.assertEqual(self.problems(check_sqlite_journal), [])
        self.assertFalse(self.path.exists())
