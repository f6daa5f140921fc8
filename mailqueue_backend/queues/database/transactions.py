"""Transactions: what is tried again when others were faster, what errors become, and what an interrupt leaves.

An interrupt (KeyboardInterrupt, or any exception that a signal handler raises) may come between any two lines. At the
line that leaves ``with transaction.atomic():`` it keeps Django's __exit__() from being called.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from time import monotonic
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, connections, transaction
from django.utils.connection import ConnectionDoesNotExist

from ...errors import ConfigurationError, QueueUnavailable
from .models import QueuedMessage


class UsesDatabase(Protocol):
    """A queue or its consumer."""

    @property
    def name(self) -> str:
        """Name of the queue."""

    @property
    def alias(self) -> str:
        """Alias of the database."""


P = ParamSpec("P")
Q = TypeVar("Q", bound=UsesDatabase)
R = TypeVar("R")

#: How often a method is called that loses against others each time.
ATTEMPTS = 4
#: Seconds after which a sender's method is not called again.
SENDERS_PATIENCE = 1.0
#: SQLSTATE of a serialization failure and of a deadlock.
LOST_STATES = {"40001", "40P01"}
#: MySQL's number for a deadlock.
LOST_NUMBER = 1213


def translates_errors(
    patience: float = math.inf,
) -> Callable[[Callable[Concatenate[Q, P], R]], Callable[Concatenate[Q, P], R]]:
    """Raise QueueUnavailable for database errors, after calling the method again where others were faster.

    The method is one statement or one transaction, not two: what is committed must not be done again. It is not called
    again after ``patience`` seconds.
    """

    def decorate(method: Callable[Concatenate[Q, P], R]) -> Callable[Concatenate[Q, P], R]:
        @wraps(method)
        def call(self: Q, /, *args: P.args, **kwargs: P.kwargs) -> R:
            attempts, until = ATTEMPTS, monotonic() + patience
            while True:
                attempts -= 1
                try:
                    return method(self, *args, **kwargs)
                except ConnectionDoesNotExist as error:
                    raise _no_such_alias(self.alias) from error
                except Error as error:
                    if not (attempts and monotonic() < until and _may_be_repeated(self.alias, error)):
                        raise _unavailable(self, error) from error

        return call

    return decorate


def _may_be_repeated(alias: str, error: Error) -> bool:
    """Return whether everything was rolled back in favour of others; a caller's transaction cannot be repeated here.

    SQLite's "database is locked" is among it: it wakes those who wait at random, so that under load one of them can
    wait longer than its timeout although the lock is free all the time.
    """
    if connections[alias].in_atomic_block:
        return False
    return (
        "is locked" in str(error)
        or error.args[:1] == (LOST_NUMBER,)
        or getattr(error.__cause__, "sqlstate", None) in LOST_STATES
    )


def _no_such_alias(alias: str) -> ConfigurationError:
    return ConfigurationError(f"MAIL_QUEUE_DATABASE = {alias!r}: there is no such alias in DATABASES.")


def _unavailable(user: UsesDatabase, error: Error) -> QueueUnavailable:
    connection = connections[user.alias]
    if not connection.in_atomic_block:
        # The next call connects anew; Django itself looks after that between requests only.
        connection.close_if_unusable_or_obsolete()
    return QueueUnavailable(f"The queue {user.name} (database {user.alias}): {_explain(error, user.alias)}")


def _explain(error: Error, alias: str) -> str:
    """Return the driver's first line: the next ones can show what is in a row."""
    reason = str(error).partition("\n")[0]
    if QueuedMessage._meta.db_table not in reason:
        return reason
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    return f'{reason} (if the table is missing: "manage.py migrate {QueuedMessage._meta.app_label}{database}")'


def in_transaction(alias: str, work: Callable[[], R]) -> R:
    """Call ``work`` in a transaction, or in a savepoint of the caller's transaction, and return what it returns."""
    block = transaction.atomic(using=alias)
    try:
        with block:
            return work()
    finally:
        if block in connections[alias].atomic_blocks:
            block.__exit__(KeyboardInterrupt, None, None)  # pragma: no cover - coverage's trace function is off there


def close_torn_transaction(alias: str) -> None:
    """Close what an interrupt inside of Django's own code has left open; leave a caller's transaction alone."""
    connection = connections[alias]
    if connection.atomic_blocks or connection.connection is None or not connection.settings_dict["AUTOCOMMIT"]:
        return
    connection.in_atomic_block = connection.needs_rollback = False
    connection.savepoint_ids.clear()
    try:
        connection.rollback()
        connection.set_autocommit(True)
    except Error:
        connection.close()
