"""The statements that change rows, written once.

They are as simple as statements are, but Django's ORM takes longer to compile them than a database to run them. So what
differs between databases is compiled by Django and kept, and the rest is written out.

Rows are found by their keys alone: by the index of the queue MySQL would lock rows of others.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.utils import CursorWrapper

from .models import QueuedMessage, in_seconds

#: Bytes and rows in one INSERT: MySQL limits its size (max_allowed_packet, 16 MB by default), SQLite its parameters.
BATCH_BYTES = 1_000_000
BATCH_ROWS = 400
_COLUMNS = "(queue, due, receipt, deliveries, payload)"
#: ``queue = %s``, worded so that no index fits.
IN_QUEUE = "COALESCE(queue, '') = %s"


class CompiledSQL(NamedTuple):
    """A statement or an expression, and its parameters."""

    sql: str
    params: tuple[Any, ...] = ()


@lru_cache(maxsize=64)
def select_claimed(alias: str, amount: int) -> str:
    """Parameters: the token, the keys."""
    return f"SELECT id FROM {table(alias)} WHERE receipt = %s AND {_one_of(amount)}"


def take_write_lock(cursor: CursorWrapper) -> None:
    """Begin a transaction on SQLite with a write: one that reads first cannot write after another one has written."""
    if cursor.db.vendor == "sqlite":
        cursor.execute(f"DELETE FROM {table(cursor.db.alias)} WHERE id = -1")


@lru_cache(maxsize=64)
def claim(alias: str, amount: int, lease: float) -> CompiledSQL:
    """Parameters: the token, those of the lease, the count of deliveries, the queue, the keys.

    A row that another consumer has claimed since it was selected has another count, and one that was buried another
    queue.
    """
    until, params = due_in(alias, lease)
    return CompiledSQL(
        f"UPDATE {table(alias)} SET receipt = %s, due = {until}, deliveries = deliveries + 1"
        f" WHERE deliveries = %s AND {IN_QUEUE} AND {_one_of(amount)}",
        params,
    )


@lru_cache(maxsize=64)
def extend(alias: str, amount: int, lease: float) -> CompiledSQL:
    """Parameters: those of the lease, the token, the keys."""
    until, params = due_in(alias, lease)
    return CompiledSQL(f"UPDATE {table(alias)} SET due = {until} WHERE receipt = %s AND {_one_of(amount)}", params)


@lru_cache(maxsize=64)
def delete(alias: str, amount: int) -> str:
    """Parameters: the token, the keys."""
    return f"DELETE FROM {table(alias)} WHERE receipt = %s AND {_one_of(amount)}"


@lru_cache(maxsize=64)
def delete_unclaimed(alias: str) -> str:
    """Parameters: the count of deliveries, the queue, the key, as they were when the row was selected."""
    return f"DELETE FROM {table(alias)} WHERE deliveries = %s AND {IN_QUEUE} AND {_one_of(1)}"


@lru_cache(maxsize=64)
def bury(alias: str, amount: int) -> str:
    """Parameters: the dead queue, the token, the keys."""
    now = due_in(alias, 0).sql
    return (
        f"UPDATE {table(alias)} SET queue = %s, due = {now}, receipt = NULL, deliveries = 0"
        f" WHERE receipt = %s AND {_one_of(amount)}"
    )


@lru_cache(maxsize=64)
def put_back(alias: str) -> str:
    """Parameters: ``due`` and the count of deliveries as they were, the token, the key."""
    return f"UPDATE {table(alias)} SET receipt = NULL, due = %s, deliveries = %s WHERE receipt = %s AND id = %s"


@lru_cache(maxsize=64)
def insert_due(alias: str, amount: int) -> str:
    """Parameters: for each row the queue and the payload, as the driver's Binary()."""
    row = f"(%s, {due_in(alias, 0).sql}, NULL, 0, {_binary(alias)})"
    return f"INSERT INTO {table(alias)} {_COLUMNS} VALUES {', '.join([row] * amount)}"


def insert_delayed(cursor: CursorWrapper, queue: str, payload: bytes, delay: float) -> None:
    """Append a payload that is due in so many seconds."""
    alias = cursor.db.alias
    due, params = due_in(alias, delay)
    statement = f"INSERT INTO {table(alias)} {_COLUMNS} VALUES (%s, {due}, NULL, 0, {_binary(alias)})"
    cursor.execute(statement, [queue, *params, cursor.db.Database.Binary(payload)])


def batches(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Cut payloads for insert_due() into batches of about BATCH_BYTES; a bigger payload makes a batch of its own."""
    begin = size = 0
    for position, payload in enumerate(payloads):
        if position > begin and (size + len(payload) > BATCH_BYTES or position - begin == BATCH_ROWS):
            yield payloads[begin:position]
            begin, size = position, 0
        size += len(payload)
    if payloads:
        yield payloads[begin:]


# parts of statements


@lru_cache(maxsize=64)
def due_in(alias: str, seconds: float) -> CompiledSQL:
    """Compile the database's time in so many seconds."""
    compiler = QueuedMessage.objects.using(alias).query.get_compiler(alias)
    sql, params = compiler.compile(in_seconds(seconds).resolve_expression(compiler.query))
    return CompiledSQL(sql, tuple(params))


@lru_cache(maxsize=64)
def table(alias: str) -> str:
    """Return the quoted name of the table."""
    return connections[alias].ops.quote_name(QueuedMessage._meta.db_table)


def _one_of(amount: int) -> str:
    return f"id IN ({', '.join(['%s'] * amount)})"


def _binary(alias: str) -> str:
    """Return the placeholder of a payload; Django's own method for it has changed with 6.1."""
    return "_binary %s" if connections[alias].vendor == "mysql" else "%s"
