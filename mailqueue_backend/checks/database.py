"""Checks of the database queue: its alias, its table, and how SQLite is set up."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import django
from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db import Error as DatabaseError

from ..queues import DEFAULT_BACKEND
from .settings import value_of

_APP = "mailqueue_database"
#: Transactions of these modes lock the database when they begin.
_LOCKING_MODES = ("IMMEDIATE", "EXCLUSIVE")


def check_alias(**kwargs: Any) -> list[CheckMessage]:
    """Report a MAIL_QUEUE_DATABASE that is not in DATABASES."""
    alias = _alias()
    if alias is None or alias in connections:
        return []
    problem = f"MAIL_QUEUE_DATABASE = {alias!r}: there is no such alias in DATABASES."
    return [Error(problem, hint=f"Write one of: {', '.join(connections)}.", id="mailqueue_backend.E004")]


def check_router(**kwargs: Any) -> list[CheckMessage]:
    """Warn of a router that forbids the table; only a warning, since another project may create it."""
    alias = _present_alias()
    if alias is None or _may_migrate(alias):
        return []
    return [
        Warning(
            f"A router in DATABASE_ROUTERS does not let migrate create the mail queue's table on {alias!r}.",
            hint=f"{_allow(alias)} If the table is created in another way, silence this warning.",
            id="mailqueue_backend.W006",
        )
    ]


def check_table(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a missing table on one of ``databases``; an error would stop the migrate that creates it."""
    alias = _present_alias()
    if alias is None or alias not in (databases or ()):
        return []
    table = apps.get_model(_APP, "QueuedMessage")._meta.db_table
    try:
        if table in connections[alias].introspection.table_names():
            return []
        problem = "does not exist"
    except DatabaseError as error:
        problem = f"cannot be looked up: {str(error).partition(chr(10))[0]}"
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    migrate = f'Run "manage.py migrate {_APP}{database}". (migrate itself shows this, before it creates the table.)'
    return [
        Warning(
            f"The mail queue's table {table} on {alias!r} {problem}.",
            hint=migrate if _may_migrate(alias) else _allow(alias),
            id="mailqueue_backend.W007",
        )
    ]


def check_sqlite_transactions(**kwargs: Any) -> list[CheckMessage]:
    """Warn of SQLite without transaction_mode, which makes a transaction that reads and then sends mail fail."""
    # Django < 5.1: there is no transaction_mode.
    alias = _sqlite_alias() if django.VERSION >= (5, 1) else None
    options = connections[alias].settings_dict["OPTIONS"] if alias else {}
    if alias is None or str(options.get("transaction_mode")).upper() in _LOCKING_MODES:
        return []
    return [
        Warning(
            f"SQLite on {alias!r}: a transaction that reads before it sends mail can fail with "
            '"database is locked" while another process writes.',
            hint=f'Write DATABASES[{alias!r}]["OPTIONS"] = {{"transaction_mode": "IMMEDIATE"}}.',
            id="mailqueue_backend.W008",
        )
    ]


def check_sqlite_journal(**kwargs: Any) -> list[CheckMessage]:
    """Warn of an SQLite file that is not in WAL mode."""
    alias = _sqlite_alias()
    path = connections[alias].settings_dict["NAME"] if alias else ""
    if alias is None or not os.path.exists(path):
        return []
    with suppress(DatabaseError), connections[alias].cursor() as cursor:
        mode = cursor.execute("PRAGMA journal_mode").fetchone()[0]
        if mode != "wal":
            return [
                Warning(
                    f"SQLite on {alias!r} is in journal mode {mode}: readers and writers wait for each other.",
                    hint=f'Run once: sqlite3 {path} "PRAGMA journal_mode=WAL".',
                    id="mailqueue_backend.W009",
                )
            ]
    return []


def _alias() -> str | None:
    """Return the alias of the database queue; None if it is not used, or its settings have a wrong type."""
    if (value_of("QUEUE_BACKEND") or DEFAULT_BACKEND) != DEFAULT_BACKEND or not apps.is_installed(DEFAULT_BACKEND):
        return None
    alias: str | None = value_of("MAIL_QUEUE_DATABASE")
    return alias


def _present_alias() -> str | None:
    alias = _alias()
    return alias if alias is not None and alias in connections else None


def _sqlite_alias() -> str | None:
    """Return the alias if the queue is in an SQLite file."""
    alias = _present_alias()
    connection: Any = connections[alias] if alias else None
    return alias if connection and connection.vendor == "sqlite" and not connection.is_in_memory_db() else None


def _may_migrate(alias: str) -> bool:
    return router.allow_migrate_model(alias, apps.get_model(_APP, "QueuedMessage"))


def _allow(alias: str) -> str:
    return (
        f'Let its allow_migrate() return True for the app label "{_APP}" on {alias!r}, and run '
        f'"manage.py migrate {_APP} --database={alias}"; or name another database in MAIL_QUEUE_DATABASE.'
    )
