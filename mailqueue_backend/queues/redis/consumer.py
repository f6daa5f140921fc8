"""The consumer of the Redis queue: each exchange is one call of the script."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from time import monotonic

from .. import base
from ..base import EXCHANGE_BYTES, Entry, Exchange, MessageQueue, Reservation, Settlement
from .client import Connection
from .script import Argument, Script, microseconds

#: Maximum number of messages that an exchange reserves: Lua limits the arguments of a command to a few thousand.
MAX_RESERVED = 1000


class Receipt(str):
    """The id of a reservation in Redis: the name of its exchange, a colon, and a number."""

    __slots__ = ("place", "until")

    #: The earliest time at which the lease can end, on time.monotonic().
    until: float
    #: Where put_back returns the message: for take(), the time that it had before, in microseconds; "" for the head.
    place: int | str


class Consumer(base.Consumer):
    """A consumer with its own connection to Redis."""

    def __init__(self, queue: MessageQueue, lease: float, script: Script) -> None:
        super().__init__(queue, lease)
        self._script = script
        self._connection = Connection(script.server)
        #: How many messages the current exchange may reserve, over all its calls.
        self._wanted = 0
        #: The ``place`` of their receipts.
        self._place: int | str = ""

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, is_repeated: bool) -> Exchange:
        if is_repeated:
            wanted = 0
        else:
            wanted = min(wanted, MAX_RESERVED)
            self._wanted, self._place = wanted, ""
        still_held = self.held.keys() - {settlement.reservation.receipt for settlement in settlements}
        call: list[Argument] = ["exchange", int(is_repeated), name, microseconds(self.lease)]
        call += self._wanted, wanted, len(still_held), EXCHANGE_BYTES
        for (_, receipt, deliveries), how, payload, delay in settlements:
            if how == "put_back":
                call += how, receipt, deliveries - 1, receipt.place
            elif how != "release":
                call += () if how == "leave" else (how, receipt)
            elif payload is None:
                call += how, receipt, microseconds(delay)
            else:
                call += "rewrite", receipt, microseconds(delay), payload
        asked_at = monotonic()
        found, taken, suspect_waiting = self._script.run(call, self._connection.execute)
        results, was_repeated, now = iter(found), call[1] == 1, monotonic()
        settled = []
        for (_, receipt, _), how, _, _ in settlements:
            # A reservation that is gone within its lease was settled by an earlier call: no one else can take it.
            settled.append(how == "leave" or next(results) == 1 or (was_repeated and now < receipt.until))
        return Exchange(settled, self._reservations(name, taken, asked_at), suspect_waiting=suspect_waiting == 1)

    def _reservations(self, name: str, taken: list[tuple[int, bytes, int]], asked_at: float) -> list[Reservation]:
        reservations = []
        for number, payload, deliveries in taken:
            receipt = Receipt(f"{name}:{number}")
            receipt.until, receipt.place = asked_at + self.lease, self._place
            reservations.append(Reservation(payload, receipt, deliveries))
        return reservations

    def extend(self, reservations: Iterable[Reservation]) -> None:
        """Renew the leases of these reservations; skip leases that are lost."""
        receipts = [reservation.receipt for reservation in reservations]
        if not receipts:
            return
        until = monotonic() + self.lease
        call: list[Argument] = ["extend", 0, microseconds(self.lease), *receipts]
        for receipt, extended in zip(receipts, self._script.run(call, self._connection.execute), strict=True):
            if extended:
                receipt.until = until

    def take(self, entry: Entry) -> Reservation | None:
        """Reserve the message of an entry, or in the list any equal payload; return None if it is gone or reserved."""
        while self._pending:
            self.exchange()
        self._wanted, self._place = 1, "" if entry.due is None else microseconds(entry.due)
        name = self._pending = token_hex(16)
        call: list[Argument] = ["take", 0, name, microseconds(self.lease), entry.key, entry.payload]
        asked_at = monotonic()
        reservations = self._reservations(name, self._script.run(call, self._connection.execute), asked_at)
        for reservation in reservations:
            self.held[reservation.receipt] = reservation
        self._pending = ""
        return reservations[0] if reservations else None

    def close(self) -> None:
        """Put back all reservations, and disconnect."""
        try:
            super().close()
        finally:
            self._connection.close()
