"""The consumer of the database queue: each exchange is one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from time import monotonic

from django.db import connections
from django.db.backends.utils import CursorWrapper

from .. import base
from ..base import EXCHANGE_BYTES, Entry, Exchange, MessageQueue, Reservation, Settlement
from . import sql
from .atomic import close_interrupted_transaction, in_transaction
from .fresh import FreshRows
from .models import DEFERRED, DUE, QueuedMessage
from .rows import Receipt, Row, RowsMissing, compile_rows, compile_select, select, settle
from .transactions import translates_errors

#: Maximum number of selects, when other consumers claim all selected rows first.
SELECTS = 50
#: Seconds between two searches for a suspect while fresh rows are due: a search has to scan all of these.
SEARCH_INTERVAL = 60


class Consumer(base.Consumer):
    """A consumer that claims rows of the table.

    An exchange remembers the rows it is about to claim. If it is repeated after an error or an interrupt, it only has
    to check which of these rows have its name as their receipt.
    """

    def __init__(self, queue: MessageQueue, lease: float, alias: str) -> None:
        super().__init__(queue, lease)
        self.name = queue.name
        self.alias = alias
        #: The rows that the latest exchange has claimed, or may have claimed.
        self._rows: list[Row] = []
        #: The earliest time at which their leases can end, on time.monotonic().
        self._until = 0.0
        #: Whether other consumers have claimed all selected rows first.
        self._lost_race = False
        self._suspect_waiting = False
        #: When to search for a suspect again, on time.monotonic().
        self._next_search = 0.0
        self._fresh = FreshRows(alias, queue.name)
        #: By receipt of an extended lease, the earliest time at which it can end, on time.monotonic().
        self._extended: dict[Receipt, float] = {}

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, is_repeated: bool) -> Exchange:
        if is_repeated or any(settlement.how == "put_back" for settlement in settlements):
            self._fresh.restart()
        if is_repeated:
            close_interrupted_transaction(self.alias)
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
        """Renew the leases of these reservations, with one statement for each exchange that reserved some of them."""
        receipts: dict[str, list[Receipt]] = {}
        for reservation in reservations:
            receipts.setdefault(reservation.receipt.token, []).append(reservation.receipt)
        self._extended = {receipt: until for receipt, until in self._extended.items() if receipt in self.held}
        for extended in receipts.values():
            self._extend(extended)

    def take(self, entry: Entry) -> Reservation | None:
        """Reserve the row of an entry; return None if it is gone or reserved."""
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

    # methods that run one transaction

    @translates_errors()
    def _transact(
        self, name: str, settlements: Sequence[Settlement], wanted: int, holds_nothing: bool, singly: bool = False
    ) -> list[bool]:
        """Settle and claim in a transaction; a single statement runs in autocommit mode instead."""

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
        """Carry out the settlements that did not take place, and look up which rows were claimed.

        A settlement that finds no row within the lease has taken place before.
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

    # steps within a transaction

    def _select(self, cursor: CursorWrapper, wanted: int, holds_nothing: bool) -> list[Row]:
        """Return rows to claim: a suspect if this consumer holds nothing else, otherwise fresh rows."""
        suspects: list[Row] | None = None
        if monotonic() >= self._next_search or (holds_nothing and self._suspect_waiting):
            suspects = self._find_suspect(cursor)
        if suspects and holds_nothing:
            return suspects
        rows = self._fresh.select(cursor, wanted)
        if suspects is None and len(rows) < wanted and sum(len(row.payload) for row in rows) < EXCHANGE_BYTES:
            # Few rows are due except suspects, so a search is short.
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
        """Claim the rows that no other consumer has claimed since; all must have the same count of deliveries."""
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
            # The dead consumer may have left more suspects, so search again at once.
            self._suspect_waiting, self._next_search = False, 0.0

    def _claimed(self, cursor: CursorWrapper, name: str, rows: list[Row]) -> list[Row]:
        """Return the rows among these that this exchange has claimed."""
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
