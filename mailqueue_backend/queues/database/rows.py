"""Reading and settling rows, with as few statements as can be.

A query is compiled once by Django, which takes longer for that than a database to run it. Reservations of one exchange
that are settled in the same way share one statement.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections
from django.db.backends.utils import CursorWrapper
from django.db.models import Case, Func, IntegerField, QuerySet, TextField, When
from django.db.models.functions import Cast

from ..base import EXCHANGE_BYTES, MessageQueue, Settlement
from . import sql
from .models import QueuedMessage, QueuedMessageQuerySet

#: A payload of more bytes is read by a statement of its own: drivers load all rows of a query before we see the first.
INLINE_BYTES = EXCHANGE_BYTES // 8
#: ``due`` as text.
WRITTEN_DUE = Cast("due", TextField())


class Row(NamedTuple):
    """What a query of compile_select() returns."""

    pk: int
    deliveries: int
    #: As the database writes it, to be written back: a datetime loses digits on SQLite, and its hour in autumn.
    due: str
    payload: bytes


@lru_cache(maxsize=256)
def compile_select(alias: str, queue: str, which: str, limit: int) -> sql.CompiledSQL:
    """Compile a query for the first rows of a queue; ``which`` is a method of QueuedMessageQuerySet.

    Where the database can pass over locked rows, the rows are locked, but for suspects: InnoDB locks all rows that it
    looks at. For the others the index gives both filter and order.
    """
    rows: QueuedMessageQuerySet = getattr(QueuedMessage.objects.using(alias).filter(queue=queue), which)()
    features = connections[alias].features
    skips_locked = features.has_select_for_update_skip_locked and features.supports_select_for_update_with_limit
    if skips_locked and which != "suspects":
        rows = rows.select_for_update(skip_locked=True)
    return compile_rows(alias, rows[:limit])


def compile_rows(alias: str, rows: QuerySet[QueuedMessage]) -> sql.CompiledSQL:
    """Compile a query whose rows select() returns."""
    size = Func("payload", function="LENGTH", output_field=IntegerField())
    inline = Case(When(size__lte=INLINE_BYTES, then="payload"))
    columns = rows.annotate(written_due=WRITTEN_DUE, size=size).annotate(inline=inline)
    values = columns.values_list("pk", "deliveries", "written_due", "size", "inline")
    statement, params = values.query.get_compiler(alias).as_sql()
    return sql.CompiledSQL(statement, tuple(params))


def select(cursor: CursorWrapper, compiled: sql.CompiledSQL) -> list[Row]:
    """Return the rows of a query, but no more once their payloads have EXCHANGE_BYTES bytes."""
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
    """Proves that a row is reserved, and says how to put it back."""

    pk: int
    #: The name of the exchange.
    token: str
    #: ``due`` as it was before, as the database writes it.
    due: str
    #: The earliest time at which the lease can end, on this process' monotonic clock.
    until: float


class RowsMissing(Exception):
    """A statement for several rows found only some of them, and cannot tell which."""


def settle(cursor: CursorWrapper, queue: MessageQueue, settlements: Sequence[Settlement], singly: bool) -> list[bool]:
    """Settle in the current transaction; return for each settlement whether it took place.

    Raises RowsMissing when a statement finds only some of its rows; with ``singly`` each settlement has its own.
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
    for done, (reservation, how, payload, delay) in zip(settled, settlements, strict=True):
        if done and how == "release":
            sql.insert_delayed(cursor, queue.name, reservation.payload if payload is None else payload, delay)
    return settled
