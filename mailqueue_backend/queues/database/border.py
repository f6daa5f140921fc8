"""The border between the queue and Django's database layer: what is tried again, and what the errors become."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import wraps
from time import monotonic
from typing import Concatenate, ParamSpec, TypeVar

from django.db import DEFAULT_DB_ALIAS, Error, connections
from django.utils.connection import ConnectionDoesNotExist

from ...errors import ConfigurationError, QueueUnavailable
from ...settings import conf
from ..base import MessageQueue
from .models import QueuedMessage

P = ParamSpec("P")
Q = TypeVar("Q", bound=MessageQueue)
R = TypeVar("R")

#: How often a call is begun that loses against others each time.
ATTEMPTS = 4
#: Seconds after which a sender's call is not begun again.
PATIENCE = 1.0
#: SQLSTATE of a serialization failure and of a deadlock.
LOST_STATES = {"40001", "40P01"}
#: MySQL's number for a deadlock.
LOST_NUMBER = 1213


def bordered(method: Callable[Concatenate[Q, P], R]) -> Callable[Concatenate[Q, P], R]:
    """Raise QueueUnavailable for any database error, and do again what the database undid in favour of others.

    The method is one statement or one transaction, not two: what is committed must not be done again.
    """
    return _bordered(method, math.inf)


def bordered_for_senders(method: Callable[Concatenate[Q, P], R]) -> Callable[Concatenate[Q, P], R]:
    """As bordered(), but somebody waits for it: what has waited for the database's own timeout is not done again."""
    return _bordered(method, PATIENCE)


def _bordered(method: Callable[Concatenate[Q, P], R], patience: float) -> Callable[Concatenate[Q, P], R]:
    @wraps(method)
    def call(queue: Q, /, *args: P.args, **kwargs: P.kwargs) -> R:
        attempts, until = ATTEMPTS, monotonic() + patience
        while True:
            attempts -= 1
            try:
                return method(queue, *args, **kwargs)
            except ConnectionDoesNotExist as error:
                raise _no_such_alias() from error
            except Error as error:
                if not (attempts and monotonic() < until and _may_be_repeated(error)):
                    raise _unavailable(queue, error) from error

    return call


def _may_be_repeated(error: Error) -> bool:
    """Tell whether all was undone because others were faster; a caller's transaction cannot be begun again here.

    SQLite's "database is locked" is among it: it wakes those who wait at random, so that under load one of them can
    wait longer than its timeout although the lock is free all the time.
    """
    if connections[conf.MAIL_QUEUE_DATABASE].in_atomic_block:
        return False
    return (
        "is locked" in str(error)
        or error.args[:1] == (LOST_NUMBER,)
        or getattr(error.__cause__, "sqlstate", None) in LOST_STATES
    )


def _no_such_alias() -> ConfigurationError:
    return ConfigurationError(
        f"MAIL_QUEUE_DATABASE = {conf.MAIL_QUEUE_DATABASE!r}: there is no such alias in DATABASES."
    )


def _unavailable(queue: MessageQueue, error: Error) -> QueueUnavailable:
    alias = conf.MAIL_QUEUE_DATABASE
    _forget_broken_connection(alias)
    return QueueUnavailable(f"The queue {queue.name} (database {alias}): {_explain(error, alias)}")


def _forget_broken_connection(alias: str) -> None:
    """Let the next call connect anew; Django itself looks after that between requests only."""
    connection = connections[alias]
    if not connection.in_atomic_block:
        connection.close_if_unusable_or_obsolete()


def _explain(error: Error, alias: str) -> str:
    """Give the driver's first line: the next ones can show what is in a row."""
    reason = str(error).partition("\n")[0]
    if QueuedMessage._meta.db_table not in reason:
        return reason
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    return f'{reason} (if the table is missing: "manage.py migrate {QueuedMessage._meta.app_label}{database}")'
