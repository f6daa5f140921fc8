"""The table of the database queue, and the states of a row.

A single column, ``due``, determines order, lease and delay: a reserved row is due again when its lease ends.

=========  ===========================  =========
state      ``receipt``                  ``due``
=========  ===========================  =========
due        any                          past
deferred   NULL                         future
reserved   the name of an exchange      future
=========  ===========================  =========

``deliveries`` is incremented when a row is reserved and decremented when it is put back. So a due row with more than 0
deliveries is a suspect: the process that had reserved it died. Only the clock of the database server sets and compares
``due`` (see Now). A row that is put back gets its former ``due``.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now as DatabaseNow

from ..base import State


class Now(DatabaseNow):
    """The current time of the database server, always in UTC.

    MySQL's CURRENT_TIMESTAMP is in the time zone of the session: it differs between clients, and repeats an hour when
    daylight saving time ends.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        """Compile for MySQL and MariaDB."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)


def in_seconds(seconds: float) -> Now | CombinedExpression:
    """Return the database's time ``seconds`` from now. For 0 it is plain Now(): on SQLite, a sum compares as later."""
    return Now() + timedelta(seconds=seconds) if seconds else Now()


#: The filters for the states of a row.
DUE = Q(due__lte=Now())
DEFERRED = Q(due__gt=Now(), receipt=None)
RESERVED = Q(due__gt=Now(), receipt__isnull=False)
#: By state, the filter of browse(); all rows of a dead queue are dead.
STATES: dict[State, Q] = {"due": DUE, "deferred": DEFERRED, "reserved": RESERVED, "dead": Q()}


class QueuedMessageQuerySet(models.QuerySet["QueuedMessage"]):
    """Rows by state, oldest first."""

    def fresh(self) -> QueuedMessageQuerySet:
        """Return the due rows that are not suspects."""
        return self.filter(DUE, deliveries=0)

    def suspects(self) -> QueuedMessageQuerySet:
        """Return the due rows whose lease has ended."""
        return self.filter(DUE, deliveries__gt=0)

    def waiting(self) -> QueuedMessageQuerySet:
        """Return the rows that are not reserved; due rows come first, since rows are ordered by ``due``."""
        return self.filter(DUE | DEFERRED)


class QueuedMessage(models.Model):
    """A payload in a queue."""

    #: On MySQL, migration 0002 gives this column a collation that distinguishes case.
    queue = models.CharField(max_length=200)
    due = models.DateTimeField()
    #: The name of the exchange that has reserved the row. This is no UUIDField, whose column type on MariaDB depends on
    #: the Django version.
    receipt = models.CharField(max_length=32, null=True, editable=False)
    deliveries = models.PositiveIntegerField(default=0)
    #: The last column, so that a database can read the others without skipping over it.
    payload = models.BinaryField()

    objects = QueuedMessageQuerySet.as_manager()

    class Meta:
        ordering = ["due", "id"]
        indexes = [models.Index(fields=["queue", "due", "id"], name="mailqueue_database_order")]

    def __str__(self) -> str:
        return f"{self.queue} #{self.pk}"
