"""Transactions: retry lost races, translate errors, and refuse a drain in a caller's transaction."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from time import monotonic
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, connections, router
from django.utils.connection import ConnectionDoesNotExist

from ...errors import ConfigurationError, QueueUnavailable
from .models import QueuedMessage


class UsesDatabase(Protocol):
    """A queue or its consumer."""

    @property
    def name(self) -> str:
        """The name of the queue."""

    @property
    def alias(self) -> str:
        """The alias of the database."""


P = ParamSpec("P")
Q = TypeVar("Q", bound=UsesDatabase)
R = TypeVar("R")

#: Maximum number of calls of a method that loses a race against other transactions.
ATTEMPTS = 4
#: Seconds after which a sender's method is not retried.
SENDERS_PATIENCE = 1.0
#: The SQLSTATE of a serialization failure and of a deadlock.
LOST_RACE_SQLSTATES = {"40001", "40P01"}
#: MySQL's error number of a deadlock.
MYSQL_DEADLOCK = 1213


def translates_errors(
    patience: float = math.inf,
) -> Callable[[Callable[Concatenate[Q, P], R]], Callable[Concatenate[Q, P], R]]:
    """Retry a method that loses a race against other transactions; raise QueueUnavailable for other database errors.

    The method must be a single statement or transaction, so that a retry cannot repeat a committed change. It is not
    retried after ``patience`` seconds.
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
                    if not (attempts and monotonic() < until and _is_lost_race(self.alias, error)):
                        _hang_up(self.alias, is_sender=patience < math.inf)
                        raise _unavailable(self, error) from error

        return call

    return decorate


def _is_lost_race(alias: str, error: Error) -> bool:
    """Return whether our own transaction was rolled back in favour of others; a caller's cannot be retried here.

    This includes SQLite's "database is locked": SQLite does not queue the waiting connections, so one of them may time
    out under load although the lock is released again and again.
    """
    if connections[alias].in_atomic_block:
        return False
    return (
        "is locked" in str(error)
        or error.args[:1] == (MYSQL_DEADLOCK,)
        or getattr(error.__cause__, "sqlstate", None) in LOST_RACE_SQLSTATES
    )


def _no_such_alias(alias: str) -> ConfigurationError:
    problem = f"MAIL_QUEUE_DATABASE = {alias!r}: there is no such alias in DATABASES."
    return ConfigurationError(problem, f"Write one of: {', '.join(connections)}.")


def _hang_up(alias: str, is_sender: bool) -> None:
    """Make the next call reconnect; Django itself checks this only between requests.

    A drain hangs up in any case: after a failover, the session may still answer, but refuse each write. A sender's
    connection stays if it is usable: the site may be reading from a cursor, or may have changes to commit.
    """
    connection = connections[alias]
    if connection.in_atomic_block or connection.connection is None:
        return
    if not (is_sender and connection.is_usable()):
        if getattr(connection, "pool", None):
            connection.connection.close()  # Django >= 5.1: the pool would hand out the same session again.
        connection.close()


def _unavailable(user: UsesDatabase, error: Error) -> QueueUnavailable:
    return QueueUnavailable(f"The queue {user.name} (database {user.alias}): {_explain(error, user.alias)}")


def _explain(error: Error, alias: str) -> str:
    """Return the first line of the driver's message; further lines may contain the data of a row."""
    reason = str(error).partition("\n")[0]
    if "locked" in reason and _began_without_lock(alias):
        return f"{reason} (a transaction that has read before it writes cannot wait: {_cure(alias)})"
    if QueuedMessage._meta.db_table not in reason:
        return reason
    if not router.allow_migrate_model(alias, QueuedMessage):
        return (
            f"{reason} (if the table is missing: a router in DATABASE_ROUTERS does not let migrate create it on "
            f'{alias}; let its allow_migrate() return True for "{QueuedMessage._meta.app_label}", and run migrate)'
        )
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    return f'{reason} (if the table is missing: "manage.py migrate {QueuedMessage._meta.app_label}{database}")'


def refuse_transaction(alias: str) -> None:
    """Raise ConfigurationError where an atomic(durable=True) would be refused, or where autocommit is off."""
    connection = connections[alias]
    if connection.atomic_blocks and not getattr(connection.atomic_blocks[-1], "_from_testcase", False):
        raise ConfigurationError(
            f"A queue in the database {alias!r} cannot be drained in a transaction of that database: if it were rolled "
            f"back, all messages would be sent again. Call the drain outside of transaction.atomic(); in a view, use "
            f"@transaction.non_atomic_requests(using={alias!r})."
        )
    is_off = connection.connection is not None and not connection.autocommit
    if not connection.in_atomic_block and (is_off or not connection.settings_dict["AUTOCOMMIT"]):
        raise ConfigurationError(
            f"A queue in the database {alias!r} cannot be drained while autocommit is off: nothing would be committed, "
            f"and all messages would be sent again. In the process that drains, remove AUTOCOMMIT from "
            f"DATABASES[{alias!r}], and do not call transaction.set_autocommit(False) before."
        )


def _began_without_lock(alias: str) -> bool:
    """Return whether the caller's transaction has begun without SQLite's write lock."""
    connection = connections[alias]
    mode = connection.settings_dict["OPTIONS"].get("transaction_mode") or "DEFERRED"
    return connection.vendor == "sqlite" and connection.in_atomic_block and mode.upper() == "DEFERRED"


def _cure(alias: str) -> str:
    if hasattr(connections[alias], "transaction_modes"):
        return 'set "OPTIONS": {"transaction_mode": "IMMEDIATE"} for this database'
    # Django < 5.1: there is no such option.
    return "send the message after it, by transaction.on_commit()"
