"""The queue in a database table, through Django's ORM, on the alias MAIL_QUEUE_DATABASE."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import TypeVar, cast
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import Count, F, Q, QuerySet
from django.db.models.expressions import Combinable

from ...settings import conf
from ..base import Counts, MessageQueue, Reservation
from .border import bordered
from .models import DEFERRED, DUE, RESERVED, Now, QueuedMessage, QueuedMessageQuerySet

T = TypeVar("T")

#: How many of the first rows a taker tries before it looks again: as many takers get one each in one go.
LOOK = 20
#: How often it looks before it believes that others take everything.
LOOKS = 50
#: Bytes of payload in one INSERT: MySQL limits a statement to max_allowed_packet, 16 MB by default.
BATCH_BYTES = 1_000_000


class Queue(MessageQueue):
    """A queue in the table of QueuedMessage.

    What is atomic here is one statement, or one transaction that begins with its write: SQLite cannot turn
    a transaction that has read into one that writes while others write. Nobody waits for another taker.
    """

    # queue-front's surface

    @bordered
    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads at the tail, all or nothing, as a part of the caller's transaction if there is one."""
        with transaction.atomic(using=self._alias):
            for batch in _batches(payloads):
                self._all.bulk_create([self._new(payload) for payload in batch])
        return [True] * len(payloads)

    @bordered
    def read(self) -> bytes | None:
        """Take a payload out for good, due ones first; None when there is nothing."""
        return self._first(self._mine.waiting(), self._take)

    # deliveries

    @bordered
    def counts(self) -> Counts:
        """Count the messages by state, in one query."""
        here, dead = Q(queue=self.name), Q(queue=self.dead_name)
        found = self._all.filter(here | dead).aggregate(
            due_ones=Count("pk", filter=here & DUE),
            deferred=Count("pk", filter=here & DEFERRED),
            reserved=Count("pk", filter=here & RESERVED),
            dead=Count("pk", filter=dead),
        )
        due = found.pop("due_ones")
        return Counts(waiting=due + found["deferred"], due=due, **found)

    @bordered
    def reserve(self, lease: float) -> Reservation | None:
        """Borrow the oldest message that is due for ``lease`` seconds; None when nothing is due."""
        return self._reserve(lease)

    @bordered
    def ack(self, reservation: Reservation) -> bool:
        """Delete the row, if it is still in this taker's hand."""
        return bool(self._held(reservation).remove())

    @bordered
    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both in one transaction, so that the next message costs one commit and not two."""
        with transaction.atomic(using=self._alias):
            return bool(self._held(reservation).remove()), self._reserve(lease)

    @bordered
    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Move it to the tail, as a new row: SQLite's clock has milliseconds, so ``due`` alone makes no order."""
        with transaction.atomic(using=self._alias):
            if not self._held(reservation).remove():
                return False
            self._all.bulk_create([self._new(reservation.payload if payload is None else payload, delay)])
        return True

    @bordered
    def bury(self, reservation: Reservation) -> bool:
        """Give the row to the dead queue."""
        buried = {"queue": self.dead_name, "due": Now(), "receipt": None, "deliveries": 0}
        return bool(self._held(reservation).update(**buried))

    # rows

    @property
    def _alias(self) -> str:
        return conf.MAIL_QUEUE_DATABASE

    @property
    def _all(self) -> QueuedMessageQuerySet:
        return QueuedMessage.objects.using(self._alias)

    @property
    def _mine(self) -> QueuedMessageQuerySet:
        return self._all.filter(queue=self.name)

    def _held(self, reservation: Reservation) -> QueuedMessageQuerySet:
        pk, receipt = cast("tuple[int, str]", reservation.receipt)
        return self._mine.filter(pk=pk, receipt=receipt)

    def _new(self, payload: bytes, delay: float = 0) -> QueuedMessage:
        return QueuedMessage(queue=self.name, payload=payload, due=_in_seconds(delay))

    def _reserve(self, lease: float) -> Reservation | None:
        return self._first(self._mine.due(), lambda pk: self._claim(pk, lease))

    def _first(self, rows: QueuedMessageQuerySet, take: Callable[[int], T | None]) -> T | None:
        """Take the first row that nobody else is taking at this moment, without waiting for anyone."""
        keys = rows.values_list("pk", flat=True)
        if not self._skips_locked_rows():
            return _race(keys, take)
        # The index gives both filter and order, so that this locks one row; InnoDB locks all that it looks at.
        with self._transaction():
            return next(map(take, keys.select_for_update(skip_locked=True)[:1]), None)

    def _skips_locked_rows(self) -> bool:
        features = connections[self._alias].features
        return features.has_select_for_update_skip_locked and features.supports_select_for_update_with_limit

    def _claim(self, pk: int, lease: float) -> Reservation | None:
        """Write our receipt into the row, if it is still due; None when someone was faster."""
        row, receipt = self._mine.filter(pk=pk), uuid4().hex
        claimed = {"receipt": receipt, "due": _in_seconds(lease), "deliveries": F("deliveries") + 1}
        with self._transaction():
            if not row.due().update(**claimed):
                return None
            payload, deliveries = row.values_list("payload", "deliveries").get()
        return Reservation(bytes(payload), (pk, receipt), deliveries)

    def _take(self, pk: int) -> bytes | None:
        """Delete the row as it was read; None when someone was faster."""
        row = self._mine.waiting().filter(pk=pk)
        for payload, receipt in row.values_list("payload", "receipt"):
            # Each hand-out writes another receipt, so the same receipt is the same row.
            if row.filter(receipt=receipt).remove():
                return bytes(payload)
        return None

    def _transaction(self) -> AbstractContextManager[None]:
        """Begin a transaction, or join the one that is open."""
        return transaction.atomic(using=self._alias, savepoint=False)


def _race(keys: QuerySet[QueuedMessage, int], take: Callable[[int], T | None]) -> T | None:
    """Try the first rows, one after the other, until one is taken; look again when others were faster each time."""
    for _ in range(LOOKS):
        candidates = list(keys[:LOOK])
        for pk in candidates:
            if (taken := take(pk)) is not None:
                return taken
        if not candidates:
            break
    return None


def _in_seconds(seconds: float) -> Combinable:
    """Give the database's time in so many seconds; 0 plainly, for a sum looks later than now on SQLite."""
    return Now() + timedelta(seconds=seconds) if seconds else Now()


def _batches(payloads: Iterable[bytes]) -> Iterator[list[bytes]]:
    """Cut the payloads into lists of about BATCH_BYTES; a bigger payload is alone."""
    batch: list[bytes] = []
    size = 0
    for payload in payloads:
        if batch and size + len(payload) > BATCH_BYTES:
            yield batch
            batch, size = [], 0
        batch.append(payload)
        size += len(payload)
    if batch:
        yield batch
