"""The three statements that lie between two messages of a drain, as SQL that is made once.

They are as simple as statements are, but Django's ORM takes longer to word them than a database to carry them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from django.db import connections

from .models import QueuedMessage, in_seconds

#: The key of a row and the random word in it: whoever knows both has it in hand.
Receipt = tuple[int, str]


class Candidate(NamedTuple):
    """A row that can be claimed."""

    pk: int
    deliveries: int
    payload: Any
    #: When a lease ends that begins now; as the driver gives it, for the driver.
    until: Any


def look(alias: str, queue: str, which: str, lease: float) -> Candidate | None:
    """Find the first row of a queue, of those that a method of QueuedMessageQuerySet names; None: there is none.

    Where the database can, the row is locked, until the end of the transaction, and it is the first one that
    nobody else has locked.
    """
    with connections[alias].cursor() as cursor:
        cursor.execute(*_look(alias, queue, which, lease))
        row = cursor.fetchone()
    return row and Candidate(*row)


def claim(alias: str, candidate: Candidate, word: str) -> bool:
    """Take a row in hand, unless somebody else was faster, who has counted the delivery."""
    return _change(
        alias,
        "UPDATE {} SET receipt = %s, due = %s, deliveries = deliveries + 1 WHERE id = %s AND deliveries = %s",
        (word, candidate.until, candidate.pk, candidate.deliveries),
    )


def forget(alias: str, receipt: Receipt) -> bool:
    """Delete a row, if it is in this hand."""
    return _change(alias, "DELETE FROM {} WHERE id = %s AND receipt = %s", receipt)


@lru_cache(maxsize=64)
def _look(alias: str, queue: str, which: str, lease: float) -> tuple[str, Sequence[Any]]:
    """Have Django word the query.

    The index gives both filter and order, so that no other row is locked: InnoDB locks each row that it looks at.
    """
    rows = getattr(QueuedMessage.objects.using(alias).filter(queue=queue), which)()
    features = connections[alias].features
    if features.supports_select_for_update_with_limit:
        rows = rows.select_for_update(skip_locked=features.has_select_for_update_skip_locked)
    columns = rows.annotate(until=in_seconds(lease)).values_list(*Candidate._fields)[:1]
    sql: tuple[str, Sequence[Any]] = columns.query.get_compiler(alias).as_sql()
    return sql


def _change(alias: str, sql: str, params: Sequence[Any]) -> bool:
    """Change one row; tell whether it was there."""
    connection = connections[alias]
    table = connection.ops.quote_name(QueuedMessage._meta.db_table)
    with connection.cursor() as cursor:
        cursor.execute(sql.format(table), params)
        changed: int = cursor.rowcount
    return changed == 1
