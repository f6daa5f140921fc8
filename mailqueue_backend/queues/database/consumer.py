"""The consumer of the database queue: one exchange is one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from time import monotonic

from django.db import connections
from django.db.backends.utils import CursorWrapper

from .. import base
from ..base import EXCHANGE_BYTES, Entry, Exchange, MessageQueue, Reservation, Settlement
from . import sql
from .models import DEFERRED, DUE, QueuedMessage
from .rows import Receipt, Row, RowsMissing, compile_rows, compile_select, select, settle
from .transactions import close_torn_transaction, in_transaction, translates_errors

#: How often an exchange selects rows that others claim first, before it leaves the queue to them.
SELECTS = 50
#: Seconds between two searches for a suspect while fresh rows are due, since a search passes over all of them.
SEARCH_INTERVAL = 60


class Consumer(base.Consumer):
    """A view of the table.

    An exchange knows the rows that it is about to claim, so after an error or an interrupt the next one only has to ask
    which of them have its name as their receipt.
    """

    def __init__(self, queue: MessageQueue, lease: float, alias: str) -> None:
        super().__init__(queue, lease)
        self.name = queue.name
        self.alias = alias
        #: What the last exchange has claimed, or may have claimed, and when its lease ends at the earliest.
        self._rows: list[Row] = []
        self._until = 0.0
        #: All rows that were selected have been claimed by others.
        self._lost_race = False
        self._suspect_waiting, self._next_search = False, 0.0
        #: When the leases end that were extended.
        self._extended: dict[Receipt, float] = {}

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, repeated: bool) -> Exchange:
        if repeated:
            close_torn_transaction(self.alias)
            settled = self._repeat(name, settlements)
        else:
            self._rows, self._lost_race, self._until = [], False, monotonic() + self.lease
            holds_nothing = self.held.keys() <= {settlement.reservation.receipt for settlement in settlements}
            settled = [True] * len(settlements)
            if wanted or any(settlement.how != "leave" for settlement in settlements):
                try:
                    settled = self._transact(name, settlements, wanted, holds_nothing)
                except RowsMissing:
                    settled = self._transact(name, settlements, wanted, holds_nothing, singly=True)
            selects = 1
            while self._lost_race and selects < SELECTS:
                selects += 1
                self._transact(name, (), wanted, holds_nothing)
        return Exchange(settled, self._reservations(name), suspect_waiting=self._suspect_waiting)

    def extend(self, reservations: Iterable[Reservation]) -> None:
        """Begin the leases of these reservations anew, with one statement for each exchange that made them."""
        receipts: dict[str, list[Receipt]] = {}
        for reservation in reservations:
            receipts.setdefault(reservation.receipt.token, []).append(reservation.receipt)
        self._extended = {receipt: until for receipt, until in self._extended.items() if receipt in self.held}
        for extended in receipts.values():
            self._extend(extended)

    def take(self, entry: Entry) -> Reservation | None:
        """Reserve exactly this row; None when it is gone or reserved."""
        while self._pending:
            self.exchange()
        self._rows, self._until = [], monotonic() + self.lease
        self._pending = token_hex(16)
        self._take(self._pending, entry)
        reservations = self._reservations(self._pending)
        for reservation in reservations:
            self.held[reservation.receipt] = reservation
        self._pending = ""
        return reservations[0] if reservations else None

    # one transaction each

    @translates_errors()
    def _transact(
        self, name: str, settlements: Sequence[Settlement], wanted: int, holds_nothing: bool, singly: bool = False
    ) -> list[bool]:
        """Settle and claim; a single statement runs in autocommit."""

        def work() -> list[bool]:
            with connection.cursor() as cursor:
                settled = settle(cursor, self._queue, settlements, singly)
                if wanted:
                    if all(settlement.how == "leave" for settlement in settlements):
                        sql.take_write_lock(cursor)
                    self._claim(cursor, name, self._select(cursor, wanted, holds_nothing))
            return settled

        connection = connections[self.alias]
        if wanted or len(settlements) > 1 or settlements[0].how == "release" or connection.in_atomic_block:
            return in_transaction(self.alias, work)
        return work()

    @translates_errors()
    def _repeat(self, name: str, settlements: Sequence[Settlement]) -> list[bool]:
        """Settle what was not settled, and look up what was claimed.

        A settlement that finds nothing within its lease took place the first time.
        """

        def work() -> list[bool]:
            with connections[self.alias].cursor() as cursor:
                settled = settle(cursor, self._queue, settlements, singly=True)
                self._rows = self._claimed(cursor, name, self._rows)
            return settled

        settled = in_transaction(self.alias, work)
        now = monotonic()
        for position, (reservation, *_) in enumerate(settlements):
            if not settled[position]:
                settled[position] = now < self._extended.get(reservation.receipt, reservation.receipt.until)
        return settled

    @translates_errors()
    def _extend(self, receipts: list[Receipt]) -> None:
        until = monotonic() + self.lease
        statement, params = sql.extend(self.alias, len(receipts), self.lease)
        with connections[self.alias].cursor() as cursor:
            cursor.execute(statement, [*params, receipts[0].token, *[receipt.pk for receipt in receipts]])
            if cursor.rowcount == len(receipts):
                self._extended.update(dict.fromkeys(receipts, until))

    @translates_errors()
    def _take(self, name: str, entry: Entry) -> None:
        rows = QueuedMessage.objects.using(self.alias).filter(DUE | DEFERRED, pk=entry.key[1], queue=self.name)

        def work() -> None:
            with connections[self.alias].cursor() as cursor:
                sql.take_write_lock(cursor)
                self._claim(cursor, name, select(cursor, compile_rows(self.alias, rows)))

        in_transaction(self.alias, work)

    # steps of a transaction

    def _select(self, cursor: CursorWrapper, wanted: int, holds_nothing: bool) -> list[Row]:
        """Return what can be claimed: a suspect, if nothing else is held, or else fresh rows."""
        suspects: list[Row] | None = None
        if monotonic() >= self._next_search or (holds_nothing and self._suspect_waiting):
            suspects = self._find_suspect(cursor)
        if suspects and holds_nothing:
            return suspects
        rows = select(cursor, compile_select(self.alias, self.name, "fresh", wanted))
        if suspects is None and len(rows) < wanted and sum(len(row.payload) for row in rows) < EXCHANGE_BYTES:
            # No other rows are due but suspects: the search is short.
            suspects = self._find_suspect(cursor)
            if holds_nothing and not rows:
                return suspects
        return rows

    def _find_suspect(self, cursor: CursorWrapper) -> list[Row]:
        suspects = select(cursor, compile_select(self.alias, self.name, "suspects", 1))
        self._suspect_waiting = bool(suspects)
        self._next_search = monotonic() + SEARCH_INTERVAL
        return suspects

    def _claim(self, cursor: CursorWrapper, name: str, rows: list[Row]) -> None:
        """Claim those of the rows that others have not claimed since; all have the same count of deliveries."""
        self._rows, self._lost_race = rows, False
        if not rows:
            return
        deliveries = rows[0].deliveries
        statement, params = sql.claim(self.alias, len(rows), self.lease)
        cursor.execute(statement, [name, *params, deliveries, self.name, *[row.pk for row in rows]])
        if cursor.rowcount != len(rows):
            self._rows = self._claimed(cursor, name, rows)
        self._lost_race = not self._rows
        if deliveries:
            # The consumer that died may have left more of them.
            self._suspect_waiting, self._next_search = False, 0.0

    def _claimed(self, cursor: CursorWrapper, name: str, rows: list[Row]) -> list[Row]:
        """Return those of the rows that this exchange has claimed."""
        if not rows:
            return rows
        cursor.execute(sql.select_claimed(self.alias, len(rows)), [name, *[row.pk for row in rows]])
        claimed = {pk for (pk,) in cursor.fetchall()}
        return [row for row in rows if row.pk in claimed]

    def _reservations(self, name: str) -> list[Reservation]:
        return [
            Reservation(payload, Receipt(pk, name, due, self._until), deliveries + 1)
            for pk, deliveries, due, payload in self._rows
        ]
