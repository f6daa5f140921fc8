"""The queue in a database table, through Django's ORM, on the alias MAIL_QUEUE_DATABASE."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from copy import copy
from datetime import timedelta
from typing import cast
from uuid import uuid4

from django.db import connections, transaction
from django.db.models import Count, F, Q
from django.db.models.expressions import Combinable

from ...settings import conf
from ..base import Counts, MessageQueue, Reservation
from .border import bordered, bordered_for_senders
from .models import DEFERRED, DUE, RESERVED, Now, QueuedMessage, QueuedMessageQuerySet

#: The key of the row and the random word in it.
Receipt = tuple[int, str]

#: How many of the first rows a taker tries before it looks again: as many takers get one each in one go.
LOOK = 20
#: How often it looks before it leaves the queue to the others.
LOOKS = 50
#: Seconds for which read() holds a row before it deletes it: a process that dies in between loses nothing.
READ_LEASE = 60
#: Bytes of payload in one INSERT: MySQL limits a statement to max_allowed_packet, 16 MB by default.
BATCH_BYTES = 1_000_000


class Queue(MessageQueue):
    """A queue in the table of QueuedMessage.

    What is atomic here is one statement, or one transaction of writes. A look comes before the transaction: SQLite
    cannot turn one that has read into one that writes while others write, and who holds its lock keeps others waiting.
    """

    #: reserve() takes expired leases as well.
    _expired = True

    @property
    def parallel(self) -> bool:
        """Tell whether other threads see the queue: not in an open transaction of ours, nor in a database in memory."""
        connection = connections[self._alias]
        in_memory = getattr(connection, "is_in_memory_db", lambda: False)()
        return not (connection.in_atomic_block or in_memory)

    # queue-front's surface

    @bordered_for_senders
    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads at the tail, all or nothing, as a part of the caller's transaction if there is one."""
        with transaction.atomic(using=self._alias):
            for batch in _batches(payloads):
                self._all.bulk_create([self._new(payload) for payload in batch])
        return [True] * len(payloads)

    def read(self) -> bytes | None:
        """Take a payload out for good, due ones first; None when there is nothing."""
        while reservation := self._borrow(self._mine.waiting(), READ_LEASE):
            if self.ack(reservation):
                return reservation.payload
        return None

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

    def reserve(self, lease: float) -> Reservation | None:
        """Borrow the oldest message that is due for ``lease`` seconds; None when nothing is due."""
        return self._borrow(self._due, lease)

    @bordered
    def ack(self, reservation: Reservation) -> bool:
        """Delete the row, if it is still in this taker's hand."""
        return bool(self._held(reservation).remove())

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both in one transaction, so that the next message costs one commit and not two."""
        acked, receipt = self._ack_and_claim(reservation, lease)
        return acked, self._fetch(receipt) or self.reserve(lease)

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

    def without_expired(self) -> Queue:
        """Give the same queue, where reserve() takes rows without a receipt alone."""
        duplicate = copy(self)
        duplicate._expired = False
        return duplicate

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

    @property
    def _due(self) -> QueuedMessageQuerySet:
        due = self._mine.due()
        return due if self._expired else due.filter(receipt=None)

    def _held(self, reservation: Reservation) -> QueuedMessageQuerySet:
        pk, word = cast(Receipt, reservation.receipt)
        return self._mine.filter(pk=pk, receipt=word)

    def _new(self, payload: bytes, delay: float = 0) -> QueuedMessage:
        return QueuedMessage(queue=self.name, payload=payload, due=_in_seconds(delay))

    def _borrow(self, rows: QueuedMessageQuerySet, lease: float) -> Reservation | None:
        """Take the first of these rows; look again when others were faster with all that were seen."""
        for _ in range(LOOKS):
            receipt, seen = self._look_and_claim(rows, lease)
            if reservation := self._fetch(receipt):
                return reservation
            if not seen:
                break
        return None

    @bordered
    def _look_and_claim(self, rows: QueuedMessageQuerySet, lease: float) -> tuple[Receipt | None, bool]:
        candidates = self._candidates(rows)
        with transaction.atomic(using=self._alias, savepoint=False):
            return self._claim(rows, candidates, lease), bool(candidates)

    @bordered
    def _ack_and_claim(self, reservation: Reservation, lease: float) -> tuple[bool, Receipt | None]:
        candidates = self._candidates(self._due)
        with transaction.atomic(using=self._alias):
            return bool(self._held(reservation).remove()), self._claim(self._due, candidates, lease)

    def _candidates(self, rows: QueuedMessageQuerySet) -> Collection[int]:
        """Look which rows are first. Where the database can, it locks the first one that nobody else has locked.

        It does so when the result is used, inside the transaction. The index gives both filter and order, so that
        no other row is locked: InnoDB locks each row that it looks at.
        """
        keys = rows.values_list("pk", flat=True)
        features = connections[self._alias].features
        if features.has_select_for_update_skip_locked and features.supports_select_for_update_with_limit:
            return keys.select_for_update(skip_locked=True)[:1]
        return list(keys[:LOOK])

    def _claim(self, rows: QueuedMessageQuerySet, candidates: Collection[int], lease: float) -> Receipt | None:
        """Write a receipt into the first candidate that is still among the rows; None when others were faster."""
        word = uuid4().hex
        claimed = {"receipt": word, "due": _in_seconds(lease), "deliveries": F("deliveries") + 1}
        for pk in candidates:
            if rows.filter(pk=pk).update(**claimed):
                return pk, word
        return None

    @bordered
    def _fetch(self, receipt: Receipt | None) -> Reservation | None:
        """Read what was claimed; None when there is nothing, or a very short lease has ended already."""
        if receipt is None:
            return None
        pk, word = receipt
        row = self._mine.filter(pk=pk, receipt=word).values_list("payload", "deliveries").first()
        return row and Reservation(bytes(row[0]), receipt, row[1])


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
