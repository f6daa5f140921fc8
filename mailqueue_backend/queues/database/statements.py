"""The three statements that lie between two messages of a drain.

They are as simple as statements are, but Django's ORM takes longer to word them than a database to carry them out.
So what Django words here is kept, and the rest is written out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections

from .models import QueuedMessage, in_seconds

#: The key of a row and the random word in it: whoever knows both has it in hand.
Receipt = tuple[int, str]
#: SQL and its parameters.
Worded = tuple[str, Sequence[Any]]


class Candidate(NamedTuple):
    """A row that can be claimed."""

    pk: int
    deliveries: int
    payload: Any


def look(alias: str, queue: str, which: str) -> Candidate | None:
    """Find the first row of a queue, of those that a method of QueuedMessageQuerySet names; None: there is none.

    In a transaction. Where the database can pass over rows that others have locked, the row is locked.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute(*_look(alias, queue, which))
        row = cursor.fetchone()
    return row and Candidate(*row)


def claim(alias: str, queue: str, candidate: Candidate, word: str, lease: float) -> bool:
    """Take a row in hand, unless somebody else was faster, who has counted the delivery."""
    until, params = _until(alias, lease)
    return _change(
        alias,
        f"UPDATE {{}} SET receipt = %s, due = {until}, deliveries = deliveries + 1"
        " WHERE id = %s AND deliveries = %s AND queue = %s",
        [word, *params, candidate.pk, candidate.deliveries, queue],
    )


def forget(alias: str, queue: str, receipt: Receipt) -> bool:
    """Delete a row, if it is in this hand."""
    return _change(alias, "DELETE FROM {} WHERE id = %s AND receipt = %s AND queue = %s", [*receipt, queue])


@lru_cache(maxsize=64)
def _look(alias: str, queue: str, which: str) -> Worded:
    """Have Django word the query.

    The index gives filter and order of what is due, so that no other row is locked: InnoDB locks what it looks at.
    """
    rows = getattr(QueuedMessage.objects.using(alias).filter(queue=queue), which)()
    features = connections[alias].features
    if features.has_select_for_update_skip_locked and features.supports_select_for_update_with_limit:
        rows = rows.select_for_update(skip_locked=True)
    worded: Worded = rows.values_list(*Candidate._fields)[:1].query.get_compiler(alias).as_sql()
    return worded


@lru_cache(maxsize=64)
def _until(alias: str, lease: float) -> Worded:
    """Have Django word the end of a lease that begins now, by the database's clock."""
    compiler = QueuedMessage.objects.using(alias).query.get_compiler(alias)
    worded: Worded = compiler.compile(in_seconds(lease).resolve_expression(compiler.query))
    return worded


def _change(alias: str, sql: str, params: Sequence[Any]) -> bool:
    """Change one row; tell whether it was there."""
    connection = connections[alias]
    table = connection.ops.quote_name(QueuedMessage._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(sql.replace("{}", table), params)
        changed: int = cursor.rowcount
    return changed == 1
