"""The queue in a database table, through Django's ORM, on the alias MAIL_QUEUE_DATABASE."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from copy import copy
from secrets import token_hex
from typing import cast

from django.db import connections, transaction
from django.db.models import Count, Q

from ...settings import conf
from ..base import Counts, MessageQueue, Reservation
from .border import bordered, bordered_for_senders
from .models import DEFERRED, DUE, RESERVED, Now, QueuedMessage, QueuedMessageQuerySet, in_seconds
from .statements import Receipt, claim, forget, look

#: A receipt that holds no row.
NOBODYS: Receipt = (-1, "")
#: How often a taker looks again before it leaves the queue to others, who are faster each time.
LOOKS = 50
#: Seconds for which read() holds a row before it deletes it: a process that dies in between loses nothing.
READ_LEASE = 60
#: Bytes of payload in one INSERT: MySQL limits a statement to max_allowed_packet, 16 MB by default.
BATCH_BYTES = 1_000_000


class Queue(MessageQueue):
    """A queue in the table of QueuedMessage.

    What is atomic here is one statement, or one transaction that begins with a change, be it of nothing: SQLite cannot
    turn one that has begun with a look into one that changes something while others do.
    """

    #: What reserve() may take: a method of QueuedMessageQuerySet.
    _which = "due"

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
        while reservation := self._swap(NOBODYS, "waiting", READ_LEASE)[1]:
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
        return self._swap(NOBODYS, self._which, lease)[1]

    @bordered
    def ack(self, reservation: Reservation) -> bool:
        """Delete the row, if it is still in this taker's hand."""
        return forget(self._alias, self.name, _receipt(reservation))

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both in one transaction, so that the next message costs one commit and not two."""
        return self._swap(_receipt(reservation), self._which, lease)

    @bordered
    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Move it to the tail, as a new row: SQLite's clock has milliseconds, so ``due`` alone makes no order."""
        with transaction.atomic(using=self._alias):
            if not forget(self._alias, self.name, _receipt(reservation)):
                return False
            self._all.bulk_create([self._new(reservation.payload if payload is None else payload, delay)])
        return True

    @bordered
    def bury(self, reservation: Reservation) -> bool:
        """Give the row to the dead queue."""
        buried = {"queue": self.dead_name, "due": Now(), "receipt": None, "deliveries": 0}
        pk, word = _receipt(reservation)
        return bool(self._all.filter(pk=pk, receipt=word, queue=self.name).update(**buried))

    def without_expired(self) -> Queue:
        """Give the same queue, where reserve() takes rows without a receipt alone."""
        duplicate = copy(self)
        duplicate._which = "fresh"
        return duplicate

    # rows

    @property
    def _alias(self) -> str:
        return conf.MAIL_QUEUE_DATABASE

    @property
    def _all(self) -> QueuedMessageQuerySet:
        return QueuedMessage.objects.using(self._alias)

    def _new(self, payload: bytes, delay: float = 0) -> QueuedMessage:
        return QueuedMessage(queue=self.name, payload=payload, due=in_seconds(delay))

    def _swap(self, held: Receipt, which: str, lease: float) -> tuple[bool, Reservation | None]:
        """Forget the row that is held and claim another one; look again while others are faster."""
        forgotten, following, seen = self._swap_once(held, which, lease)
        for _ in range(LOOKS):
            if following or not seen:
                break
            _, following, seen = self._swap_once(NOBODYS, which, lease)
        return forgotten, following

    @bordered
    def _swap_once(self, held: Receipt, which: str, lease: float) -> tuple[bool, Reservation | None, bool]:
        """Try it with the first row; tell also whether there is one."""
        alias, name, word = self._alias, self.name, token_hex(16)
        with transaction.atomic(using=alias):
            forgotten = forget(alias, name, held)
            candidate = look(alias, name, which)
            if candidate is None or not claim(alias, name, candidate, word, lease):
                return forgotten, None, candidate is not None
        pk, deliveries, payload = candidate
        return forgotten, Reservation(bytes(payload), (pk, word), deliveries + 1), True


def _receipt(reservation: Reservation) -> Receipt:
    return cast(Receipt, reservation.receipt)


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
