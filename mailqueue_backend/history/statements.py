"""The statements that change the history.

No transaction reads before it writes: on SQLite, it could not wait for a lock.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TypeVar

from django.db import connections, router
from django.utils import timezone

from ..delivery.events import Event
from ..queues.database.atomic import close_interrupted_transaction, in_transaction
from ..settings import conf
from .models import Recipient, Status
from .rows import fitted

R = TypeVar("R")

#: The columns that an attempt changes.
UPDATED = ["mail_id", "queue", "status", "reply", "error", "attempts", "changed"]
#: Maximum number of rows that one statement deletes; SQLite before 3.32 accepts 999 parameters.
STEP = 500
#: More days are counted as so many, since datetime has no times before the year 1.
LONGEST_DAYS = 365 * 1000


def history_alias() -> str:
    """Return the alias of the history's database, which DATABASE_ROUTERS may choose."""
    return router.db_for_write(Recipient)


def insert(alias: str, rows: Sequence[Recipient]) -> None:
    """Insert the rows of queued messages, except those that a drain has written already."""
    objects = Recipient.objects.using(alias)
    _transact(alias, lambda: objects.bulk_create(rows, ignore_conflicts=True))


def upsert(alias: str, rows: Sequence[Recipient]) -> None:
    """Insert or update the rows of messages that were tried."""
    objects, rows = Recipient.objects.using(alias), _without_accepted(alias, rows)
    has_target = connections[alias].features.supports_update_conflicts_with_target
    unique = ["message_id", "address"] if has_target else None
    _transact(
        alias,
        lambda: objects.bulk_create(rows, update_conflicts=True, update_fields=UPDATED, unique_fields=unique),
    )


def _without_accepted(alias: str, rows: Sequence[Recipient]) -> list[Recipient]:
    """Leave out failures of messages that the server has accepted: the drain was killed after that, and sent a copy."""
    failed = {row.mail_id for row in rows if row.status != Status.ACCEPTED}
    if not failed:
        return list(rows)
    accepted = Recipient.objects.using(alias).filter(mail_id__in=failed, status=Status.ACCEPTED)
    known = set(accepted.values_list("mail_id", "address"))
    return [row for row in rows if row.status == Status.ACCEPTED or (row.mail_id, row.address) not in known]


def set_aside(alias: str, buried: Sequence[Event]) -> None:
    """Update the rows of messages that were moved to the dead queue; their recipients are not known."""
    for event in buried:
        rows = Recipient.objects.using(alias).filter(mail_id=event.id).exclude(status=Status.ACCEPTED)
        changes = {"status": Status.SET_ASIDE, "error": fitted("error", event.error), "changed": timezone.now()}
        _transact(alias, partial(rows.update, **changes))


def prune(limit: int | None = None) -> int:
    """Delete the rows that have not changed for MAIL_QUEUE_HISTORY_DAYS, up to ``limit``; return how many."""
    alias = history_alias()
    before = timezone.now() - timedelta(days=min(conf.MAIL_QUEUE_HISTORY_DAYS, LONGEST_DAYS))
    rows, deleted = Recipient.objects.using(alias), 0
    while limit is None or deleted < limit:
        step = STEP if limit is None else min(STEP, limit - deleted)
        old = list(rows.filter(changed__lt=before).order_by("changed").values_list("pk", flat=True)[:step])
        if old:
            deleted += _transact(alias, rows.filter(pk__in=old).delete)[0]
        if len(old) < step:
            break
    return deleted


def _transact(alias: str, work: Callable[[], R]) -> R:
    """Call ``work`` in a transaction, which an interrupt does not leave open: the queue would be settled in it."""
    completed = False
    try:
        result = in_transaction(alias, work)
        completed = True
        return result
    finally:
        if not completed:
            close_interrupted_transaction(alias)
