"""The statements that change rows.

The statements are simple, but Django's ORM takes longer to compile them than a database to run them. So Django compiles
only the parts that differ between databases, which are cached, and the rest is written in SQL.

Each function returns a statement; its docstring lists the parameters in order. Rows are found by primary key only: with
the index on the queue, MySQL would lock rows of other consumers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import DataError, Error, connections
from django.db.backends.utils import CursorWrapper

from .models import QueuedMessage, in_seconds

#: Maximum bytes of the payloads of an INSERT of several rows: MySQL limits a statement to max_allowed_packet. Even if
#: that is only 1 MB, this much fits, since a driver may double each byte.
BATCH_BYTES = 400_000
#: Maximum bytes of an INSERT of one row, in addition to its payload.
INSERT_BYTES = 2_000
#: Maximum rows per INSERT: SQLite limits the number of its parameters.
BATCH_ROWS = 400
#: MySQL's error numbers for a row that is too large for its log or for max_allowed_packet, and for a lost connection.
MYSQL_REFUSALS = (1118, 1153, 2006, 2013)
_COLUMNS = "(queue, due, receipt, deliveries, payload)"
#: ``queue = %s``, in a form that no index can serve.
IN_QUEUE = "COALESCE(queue, '') = %s"


class CompiledSQL(NamedTuple):
    """A statement or an expression with its parameters."""

    sql: str
    params: tuple[Any, ...] = ()


@lru_cache(maxsize=64)
def select_claimed(alias: str, amount: int) -> str:
    """Parameters: the token, the keys."""
    return f"SELECT id FROM {table(alias)} WHERE receipt = %s AND {_id_in(amount)}"


def take_write_lock(cursor: CursorWrapper) -> None:
    """Lock an SQLite database for writing. A transaction that reads first cannot write once another one has written."""
    if cursor.db.vendor == "sqlite":
        cursor.execute(f"DELETE FROM {table(cursor.db.alias)} WHERE id = -1")


@lru_cache(maxsize=64)
def claim(alias: str, amount: int, lease: float) -> CompiledSQL:
    """Parameters: the token, those of the lease, the count of deliveries, the queue, the keys.

    The count excludes rows that another consumer has claimed since they were selected; the queue excludes rows that it
    has buried.
    """
    until, params = due_in(alias, lease)
    return CompiledSQL(
        f"UPDATE {table(alias)} SET receipt = %s, due = {until}, deliveries = deliveries + 1"
        f" WHERE deliveries = %s AND {IN_QUEUE} AND {_id_in(amount)}",
        params,
    )


@lru_cache(maxsize=64)
def extend(alias: str, amount: int, lease: float) -> CompiledSQL:
    """Parameters: those of the lease, the token, the keys."""
    until, params = due_in(alias, lease)
    return CompiledSQL(f"UPDATE {table(alias)} SET due = {until} WHERE receipt = %s AND {_id_in(amount)}", params)


@lru_cache(maxsize=64)
def delete(alias: str, amount: int) -> str:
    """Parameters: the token, the keys."""
    return f"DELETE FROM {table(alias)} WHERE receipt = %s AND {_id_in(amount)}"


@lru_cache(maxsize=64)
def delete_unclaimed(alias: str) -> str:
    """Parameters: the count of deliveries, the queue, the key, as they were when the row was selected."""
    return f"DELETE FROM {table(alias)} WHERE deliveries = %s AND {IN_QUEUE} AND {_id_in(1)}"


@lru_cache(maxsize=64)
def bury(alias: str, amount: int) -> str:
    """Parameters: the dead queue, the token, the keys."""
    now = due_in(alias, 0).sql
    return (
        f"UPDATE {table(alias)} SET queue = %s, due = {now}, receipt = NULL, deliveries = 0"
        f" WHERE receipt = %s AND {_id_in(amount)}"
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
    """Insert a payload that is due in ``delay`` seconds."""
    alias = cursor.db.alias
    due, params = due_in(alias, delay)
    statement = f"INSERT INTO {table(alias)} {_COLUMNS} VALUES (%s, {due}, NULL, 0, {_binary(alias)})"
    cursor.execute(statement, [queue, *params, cursor.db.Database.Binary(payload)])


def batches(payloads: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Split payloads into batches of at most BATCH_ROWS and BATCH_BYTES; a bigger payload is a batch by itself."""
    start = size = 0
    for position, payload in enumerate(payloads):
        if position > start and (size + len(payload) > BATCH_BYTES or position - start == BATCH_ROWS):
            yield payloads[start:position]
            start, size = position, 0
        size += len(payload)
    if payloads:
        yield payloads[start:]


def max_allowed_packet(cursor: CursorWrapper) -> int:
    """Return the maximum size of a statement on a MySQL server, in bytes."""
    cursor.execute("SELECT @@max_allowed_packet")
    (limit,) = cursor.fetchone()
    return int(limit)


def may_be_about_the_row(error: Error) -> bool:
    """Return whether an INSERT may have failed because of its row. A MySQL server may just hang up on a large one."""
    return isinstance(error, DataError) or error.args[:1] in {(number,) for number in MYSQL_REFUSALS}


def statement_bytes(connection: Any, payload: bytes) -> int:
    """Return the size of the INSERT of a payload in bytes, as the MySQL driver encodes it."""
    connection.ensure_connection()
    encoder = "literal" if connection.Database.__name__ == "MySQLdb" else "escape"  # mysqlclient, or PyMySQL
    encode = getattr(connection.connection, encoder, bytes)
    return INSERT_BYTES + len(encode(connection.Database.Binary(payload)))


# parts of statements


@lru_cache(maxsize=64)
def due_in(alias: str, seconds: float) -> CompiledSQL:
    """Compile the database's time ``seconds`` from now."""
    compiler = QueuedMessage.objects.using(alias).query.get_compiler(alias)
    sql, params = compiler.compile(in_seconds(seconds).resolve_expression(compiler.query))
    return CompiledSQL(sql, tuple(params))


@lru_cache(maxsize=64)
def table(alias: str) -> str:
    """Return the quoted name of the table."""
    return connections[alias].ops.quote_name(QueuedMessage._meta.db_table)


def _id_in(amount: int) -> str:
    return f"id IN ({', '.join(['%s'] * amount)})"


def _binary(alias: str) -> str:
    """Return the placeholder of a payload; Django's own method for this differs since 6.1."""
    return "_binary %s" if connections[alias].vendor == "mysql" else "%s"
