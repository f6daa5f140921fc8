"""Checks of the database queue on SQLite: how transactions begin, and the journal."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import Any

import django
from django.core.checks import CheckMessage, Warning
from django.db import Error as DatabaseError
from django.db import connections

from .database import present_alias

#: Transactions of these modes lock the database when they begin.
_LOCKING_MODES = ("IMMEDIATE", "EXCLUSIVE")


def check_sqlite_transactions(**kwargs: Any) -> list[CheckMessage]:
    """Warn of SQLite without transaction_mode, which makes a transaction that reads and then sends mail fail."""
    # Django < 5.1: there is no transaction_mode.
    alias = _sqlite_alias() if django.VERSION >= (5, 1) else None
    if alias is None or _transaction_mode(alias) in _LOCKING_MODES:
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
    mode = _journal_mode(alias) if alias else None
    if alias is None or mode in (None, "wal"):
        return []
    return [
        Warning(
            f"SQLite on {alias!r} is in journal mode {mode}: readers and writers wait for each other.",
            hint=f'Run once: sqlite3 {_path(alias)} "PRAGMA journal_mode=WAL".',
            id="mailqueue_backend.W009",
        )
    ]


def _sqlite_alias() -> str | None:
    """Return the alias if the queue is in an SQLite file."""
    alias = present_alias()
    connection: Any = connections[alias] if alias else None
    return alias if connection and connection.vendor == "sqlite" and not connection.is_in_memory_db() else None


def _transaction_mode(alias: str) -> str:
    return str(connections[alias].settings_dict["OPTIONS"].get("transaction_mode")).upper()


def _journal_mode(alias: str) -> str | None:
    """Ask the database; return None if that fails. Do not create a file that does not exist yet."""
    if os.path.exists(_path(alias)):
        with suppress(DatabaseError), connections[alias].cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            mode: str = cursor.fetchone()[0]
            return mode
    return None


def _path(alias: str) -> str:
    return str(connections[alias].settings_dict["NAME"])
