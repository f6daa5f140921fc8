"""The table of the database queue, and the states that a row can be in.

One column, ``due``, gives order, lease and delay: a reserved row is due again when its lease ends.

=========  ===========================  =========
state      ``receipt``                  ``due``
=========  ===========================  =========
due        any                          past
deferred   NULL                         to come
reserved   the name of an exchange      to come
=========  ===========================  =========

``deliveries`` is raised when a row is reserved and lowered when it is put back, so that a row that is due with more
than 0 is a suspect: the process that had reserved it died. ``due`` is written and compared by the clock of the database
server alone, see Now; only a row that is put back gets the ``due`` that it had.
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
    """The database server's clock, in UTC everywhere.

    MySQL's CURRENT_TIMESTAMP follows the time zone of the session: it differs between clients, and in
    autumn it runs through one hour twice.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        """Compile for MySQL and MariaDB."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)


def in_seconds(seconds: float) -> Now | CombinedExpression:
    """Return the database's time in so many seconds; plain Now() for 0, since a sum looks later than now on SQLite."""
    return Now() + timedelta(seconds=seconds) if seconds else Now()


DUE = Q(due__lte=Now())
DEFERRED = Q(due__gt=Now(), receipt=None)
RESERVED = Q(due__gt=Now(), receipt__isnull=False)
#: The rows that browse() lists; all rows of a dead queue are dead.
STATES: dict[State, Q] = {"due": DUE, "deferred": DEFERRED, "reserved": RESERVED, "dead": Q()}


class QueuedMessageQuerySet(models.QuerySet["QueuedMessage"]):
    """Rows by state, oldest first."""

    def fresh(self) -> QueuedMessageQuerySet:
        """Return the rows that are due and no suspects."""
        return self.filter(DUE, deliveries=0)

    def suspects(self) -> QueuedMessageQuerySet:
        """Return the rows that are due since their leases ended."""
        return self.filter(DUE, deliveries__gt=0)

    def waiting(self) -> QueuedMessageQuerySet:
        """Return the rows that are not reserved; the due ones come first, since ``due`` is the order."""
        return self.filter(DUE | DEFERRED)


class QueuedMessage(models.Model):
    """One payload in a queue."""

    queue = models.CharField(max_length=200)
    due = models.DateTimeField()
    #: The name of the exchange that has reserved the row. No UUIDField: its type changes with Django's version on
    #: MariaDB.
    receipt = models.CharField(max_length=32, null=True, editable=False)
    deliveries = models.PositiveIntegerField(default=0)
    #: Last, so that a database need not step over it to reach the others.
    payload = models.BinaryField()

    objects = QueuedMessageQuerySet.as_manager()

    class Meta:
        ordering = ["due", "id"]
        indexes = [models.Index(fields=["queue", "due", "id"], name="mailqueue_database_order")]

    def __str__(self) -> str:
        return f"{self.queue} #{self.pk}"
