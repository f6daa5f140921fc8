"""The table of the database queue, and the states that a row can be in.

One column, ``due``, gives order, lease and delay: a row in someone's hand is due again when its lease ends.

=========  ============  =========
state      ``receipt``   ``due``
=========  ============  =========
due        any           passed
deferred   NULL          to come
reserved   its taker's   to come
=========  ============  =========

``due`` is written and compared by the clock of the database server alone, see Now.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.db import models
from django.db.models import Q
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Now as DatabaseNow


class Now(DatabaseNow):
    """The database server's clock, in UTC everywhere.

    MySQL's CURRENT_TIMESTAMP follows the time zone of the session: it differs between clients, and in
    autumn it runs through one hour twice.
    """

    def as_mysql(self, compiler: Any, connection: Any, **extra_context: Any) -> Any:
        """Compile for MySQL and MariaDB."""
        return self.as_sql(compiler, connection, template="UTC_TIMESTAMP(6)", **extra_context)


def in_seconds(seconds: float) -> Now | CombinedExpression:
    """Give the database's time in so many seconds; 0 plainly, for a sum looks later than now on SQLite."""
    return Now() + timedelta(seconds=seconds) if seconds else Now()


DUE = Q(due__lte=Now())
DEFERRED = Q(due__gt=Now(), receipt=None)
RESERVED = Q(due__gt=Now(), receipt__isnull=False)


class QueuedMessageQuerySet(models.QuerySet["QueuedMessage"]):
    """Rows by state, oldest first."""

    def due(self) -> QueuedMessageQuerySet:
        """Those that can be taken: new ones, deferred ones whose delay is over, expired leases."""
        return self.filter(DUE)

    def fresh(self) -> QueuedMessageQuerySet:
        """Those of them without a receipt: no expired leases."""
        return self.due().filter(receipt=None)

    def waiting(self) -> QueuedMessageQuerySet:
        """Those in nobody's hand; the due ones first, since ``due`` is the order."""
        return self.filter(DUE | DEFERRED)


class QueuedMessage(models.Model):
    """One payload in a queue."""

    queue = models.CharField(max_length=200)
    due = models.DateTimeField()
    #: A random word that whoever holds it knows. No UUIDField: its type changes with Django's version on MariaDB.
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
