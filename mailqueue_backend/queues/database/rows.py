"""Read and settle rows with as few statements as possible.

Django compiles each query only once, since compiling takes longer than running it. Reservations of the same exchange
that are settled in the same way share a statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import Error, connections
from django.db.backends.utils import CursorWrapper
from django.db.models import Case, DateTimeField, Func, IntegerField, QuerySet, TextField, When
from django.db.models.expressions import RawSQL
from django.db.models.functions import Cast

from ...errors import PayloadRefused
from ..base import EXCHANGE_BYTES, MessageQueue, Settlement
from . import sql
from .models import QueuedMessage, QueuedMessageQuerySet

#: Maximum size in bytes of a payload that is selected with its row; drivers load all rows of a query into memory. A
#: bigger payload is read by a separate statement.
INLINE_BYTES = EXCHANGE_BYTES // 8
#: ``due`` as the database writes it, as text.
WRITTEN_DUE = Cast("due", TextField())


class Row(NamedTuple):
    """A row as returned by select()."""

    pk: int
    deliveries: int
    #: The text of the database, so that it can be written back unchanged. A datetime would lose digits on SQLite, and
    #: would be ambiguous when daylight saving time ends.
    due: str
    payload: bytes


@lru_cache(maxsize=256)
def compile_select(alias: str, queue: str, which: str, limit: int, since: str = "") -> sql.CompiledSQL:
    """Compile a query for the first rows of a queue, or the first since a time as the database writes it.

    ``which`` is a method of QueuedMessageQuerySet.

    The rows are locked if the database supports SKIP LOCKED. Suspects are not: InnoDB locks every row that it examines,
    and the index covers the filter and order of the other queries only.
    """
    rows: QueuedMessageQuerySet = getattr(QueuedMessage.objects.using(alias).filter(queue=queue), which)()
    features = connections[alias].features
    skips_locked = features.has_select_for_update_skip_locked and features.supports_select_for_update_with_limit
    if skips_locked and which != "suspects":
        rows = rows.select_for_update(skip_locked=True)
    if since:
        rows = rows.filter(due__gte=written_time(alias, since))
    return compile_rows(alias, rows[:limit])


def written_time(alias: str, due: str) -> RawSQL:
    """Return an expression for a time as the database writes it."""
    placeholder = "%s::timestamptz" if connections[alias].vendor == "postgresql" else "%s"
    return RawSQL(placeholder, [due], output_field=DateTimeField())


def compile_rows(alias: str, rows: QuerySet[QueuedMessage]) -> sql.CompiledSQL:
    """Compile a query for select()."""
    size = Func("payload", function="LENGTH", output_field=IntegerField())
    inline = Case(When(size__lte=INLINE_BYTES, then="payload"))
    columns = rows.annotate(written_due=WRITTEN_DUE, size=size).annotate(inline=inline)
    values = columns.values_list("pk", "deliveries", "written_due", "size", "inline")
    statement, params = values.query.get_compiler(alias).as_sql()
    return sql.CompiledSQL(statement, tuple(params))


def select(cursor: CursorWrapper, compiled: sql.CompiledSQL) -> list[Row]:
    """Run a query and return its rows; stop once their payloads reach EXCHANGE_BYTES bytes."""
    cursor.execute(*compiled)
    rows: list[Row] = []
    total = 0
    for pk, deliveries, due, size, payload in cursor.fetchall():
        if total >= EXCHANGE_BYTES:
            break
        if payload is None:
            cursor.execute(f"SELECT payload FROM {sql.table(cursor.db.alias)} WHERE id = %s", [pk])
            (payload,) = cursor.fetchone() or (None,)
        if payload is not None:
            rows.append(Row(pk, deliveries, due, bytes(payload)))
            total += size
    return rows


class Receipt(NamedTuple):
    """Proof that a row is reserved, with the data needed to put it back."""

    pk: int
    #: The name of the exchange.
    token: str
    #: ``due`` before the reservation, as the database writes it.
    due: str
    #: The earliest time at which the lease can end, on time.monotonic().
    until: float


class RowsMissing(Exception):
    """A statement for several rows found only some of them; which ones is unknown."""


def settle(cursor: CursorWrapper, queue: MessageQueue, settlements: Sequence[Settlement], singly: bool) -> list[bool]:
    """Carry out the settlements in the current transaction; return for each whether it took place.

    Raises PayloadRefused if the database does not store a released message.

    Raises RowsMissing if a statement finds only some of its rows. With ``singly``, each settlement has its own
    statement, and the error cannot occur.
    """
    alias = cursor.db.alias
    settled = [True] * len(settlements)
    groups: dict[Any, list[int]] = {}
    for position, (reservation, how, _, _) in enumerate(settlements):
        if how != "leave":
            key = position if singly or how == "put_back" else (how, reservation.receipt.token)
            groups.setdefault(key, []).append(position)
    for positions in groups.values():
        reservation, how, _, _ = settlements[positions[0]]
        pk, token, due, _ = reservation.receipt
        pks = [settlements[position].reservation.receipt.pk for position in positions]
        if how == "put_back":
            cursor.execute(sql.put_back(alias), [due, reservation.deliveries - 1, token, pk])
        elif how == "bury":
            cursor.execute(sql.bury(alias, len(pks)), [queue.dead_name, token, *pks])
        else:
            cursor.execute(sql.delete(alias, len(pks)), [token, *pks])
        if cursor.rowcount != len(pks):
            if len(pks) > 1:
                raise RowsMissing
            settled[positions[0]] = False
    for took_place, settlement in zip(settled, settlements, strict=True):
        if took_place and settlement.how == "release":
            _insert_released(cursor, queue, settlement)
    return settled


def _insert_released(cursor: CursorWrapper, queue: MessageQueue, settlement: Settlement) -> None:
    reservation, _, payload, delay = settlement
    try:
        sql.insert_delayed(cursor, queue.name, reservation.payload if payload is None else payload, delay)
    except Error as error:
        if not sql.may_be_about_the_row(error):
            raise
        # Not the whole error text, which may quote the row.
        raise PayloadRefused(str(error).partition("\n")[0], reservation.receipt) from error
