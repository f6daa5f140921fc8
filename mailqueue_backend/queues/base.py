"""The contract that every queue engine fulfils.

A queue stores payloads, which are opaque bytes to it. ``read()`` and ``write()`` are queue-front's interface.
Deliveries go through a consumer, which reserves payloads for a lease. Until its lease ends, a reserved payload is not
handed to another consumer; if the process dies, it is due again when the lease ends. Any method may raise
QueueUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, NamedTuple

#: ack: delete the message. release: move it to the tail. bury: move it to the dead queue, bytes unchanged. put_back:
#: return a message whose delivery was not begun to its place, with its former count of deliveries. leave: keep it
#: reserved until its lease ends.
How = Literal["ack", "release", "bury", "put_back", "leave"]
#: The states of a message that browse() lists.
State = Literal["due", "deferred", "reserved", "dead"]

#: An exchange stops reserving once the reserved payloads reach this size, in bytes.
EXCHANGE_BYTES = 1_000_000


class Reservation(NamedTuple):
    """A payload that one consumer has reserved until the lease ends."""

    payload: bytes
    #: The engine's proof of the reservation; hashable, opaque to callers.
    receipt: Any
    #: How often the message was handed out without being settled, including this time. It exceeds 1 only after a
    #: consumer died with the message, which makes the message a suspect.
    deliveries: int


class Settlement(NamedTuple):
    """The end of a reservation, and the data that it needs."""

    reservation: Reservation
    how: How
    #: The new bytes of a released message; None to keep the old ones.
    payload: bytes | None = None
    #: Seconds until a released message is due.
    delay: float = 0


class Exchange(NamedTuple):
    """The result of Consumer.exchange()."""

    #: For each settlement, in order, whether it took place. If not, the lease was lost and nothing has changed.
    settled: list[bool]
    reservations: list[Reservation]
    #: Whether the engine's connection was lost. All earlier reservations will be handed out again, so the caller must
    #: drop those that it has not begun.
    lost: bool = False
    #: Whether a suspect is due; it is handed out once this consumer holds no reservation.
    suspect_waiting: bool = False


class Entry(NamedTuple):
    """A message as listed by browse()."""

    #: Identifies the message to browse(after=…) and take(); opaque to callers.
    key: Any
    payload: bytes
    state: State
    #: When the message is due or its lease ends, in seconds since 1970 on the engine's clock; None if unknown.
    due: float | None
    #: How often the message was handed out without being settled.
    deliveries: int


class Counts(NamedTuple):
    """The number of messages in a queue, by state; waiting = due + deferred."""

    waiting: int
    #: Can be reserved now, including messages whose lease has ended.
    due: int
    #: Released with a delay that has not passed yet.
    deferred: int
    #: Held by a consumer.
    reserved: int
    #: In the dead queue.
    dead: int


class Consumer:
    """A connection to a queue that reserves messages, and settles its own reservations. A context manager.

    Not thread-safe. Even if an exception or an interrupt ends a call at any line, close() returns every reservation.
    """

    def __init__(self, queue: MessageQueue, lease: float) -> None:
        self.lease = lease
        #: The reservations of this consumer by receipt, oldest first.
        self.held: dict[Any, Reservation] = {}
        self._queue = queue
        #: The name of an exchange whose answer was lost; "" if there is none.
        self._pending = ""

    def exchange(self, settlements: Sequence[Settlement] = (), wanted: int = 0) -> Exchange:
        """Carry out the settlements, then reserve up to ``wanted`` due messages, oldest first.

        A suspect is handed out alone, and only if this consumer holds no other reservation. Until it is settled, pass
        wanted=0.

        Raises PayloadRefused if the engine does not store the payload of a released message.

        After an error, call exchange() again: a settlement that has taken place is not repeated, and messages that were
        reserved are returned.
        """
        is_repeated = bool(self._pending)
        self._pending = self._pending or token_hex(16)
        answer = self._exchange(self._pending, settlements, wanted, is_repeated)
        for settlement in settlements:
            self.held.pop(settlement.reservation.receipt, None)
        if answer.lost:
            self.held.clear()
        for reservation in answer.reservations:
            self.held[reservation.receipt] = reservation
        self._pending = ""
        return answer

    def extend(self, reservations: Iterable[Reservation]) -> None:
        """Renew the leases of these reservations; skip leases that are lost."""

    def keep_alive(self) -> None:
        """Send the engine a heartbeat; call this every few seconds while waiting."""

    def take(self, entry: Entry) -> Reservation | None:
        """Reserve the message of an entry; return None if it is gone or reserved.

        To take a dead message, use a consumer of the dead queue, in which the message is due.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define take()")

    def close(self) -> None:
        """Put back all reservations. May be called again, also after an interrupt or an error."""
        if self._pending:
            # Recover the lost reservations first: messages that are put back together keep their order.
            self.exchange()
        while self._pending or self.held:
            self.exchange([Settlement(reservation, "put_back") for reservation in self.held.values()])

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, is_repeated: bool) -> Exchange:
        """Implement exchange(). ``name`` identifies the exchange: a repeated call has the name of the first.

        ``is_repeated``: an earlier call of this name may have been carried out. If so, a settlement that does not find
        its reservation within the lease counts as done. Return what this name has reserved, and reserve nothing else.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define _exchange()")


class MessageQueue:
    """A named queue of payloads.

    Objects of the same class and name share one queue. Methods may be called from any thread.
    """

    #: Reservations have leases: if a consumer dies, the message is handed out again when the lease ends.
    leases = True
    #: A released message can be delayed; otherwise it is due at once.
    delays = True
    #: write_many() stores all payloads or none.
    atomic_batches = True
    #: browse() and take() work.
    browsable = True
    #: sibling() opens another queue; a module of a site may know only one.
    pausable = True
    #: counts() is exact.
    counts_exactly = True
    #: put_back returns a message to its former place; otherwise to the tail.
    keeps_place = True
    #: Only the death of a consumer increases Reservation.deliveries; otherwise a lost connection does so too.
    counts_only_deaths = True

    def __init__(self, name: str = "default") -> None:
        self.name = name

    @property
    def parallel(self) -> bool:
        """Whether several threads may deliver messages now. Only one of them uses the consumer."""
        return True

    @property
    def largest_payload(self) -> int | None:
        """Maximum size of a payload in bytes, as stored_size() returns it; None: no limit is known."""
        return None

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.name}>"

    def sibling(self, name: str) -> MessageQueue:
        """Open another queue of the same engine."""
        return type(self)(name)

    # queue-front's interface

    def write(self, payload: bytes) -> bool:
        """Store a payload at the tail; return True."""
        return self.write_many(payload)[0]

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads at the tail, in this order; return True for each."""
        raise NotImplementedError(f"{type(self).__qualname__} must define write_many()")

    def read(self) -> bytes | None:
        """Remove a waiting payload and return it, due ones first; return None if there is none."""
        raise NotImplementedError(f"{type(self).__qualname__} must define read()")

    def read_many(self, amount: int) -> list[bytes]:
        """Remove up to ``amount`` waiting payloads and return them."""
        payloads: list[bytes] = []
        while len(payloads) < amount and (payload := self.read()) is not None:
            payloads.append(payload)
        return payloads

    def __len__(self) -> int:
        """Return the number of waiting messages: due (including ended leases) and deferred, but not reserved."""
        return self.counts().waiting

    def stored_size(self, payload: bytes) -> int:
        """Return how many bytes of largest_payload a payload takes; more than its length if the engine encodes it."""
        return len(payload)

    def explain_size(self, payload: bytes) -> str:
        """Return why a payload is too large for the queue, and what to do; "" if it is not."""
        limit = self.largest_payload
        if limit is None or (size := self.stored_size(payload)) <= limit:
            return ""
        return f"it takes {size} bytes in the queue, which accepts at most {limit}"

    # deliveries

    def check_can_drain(self) -> None:
        """Raise ConfigurationError if a drain could not settle for good what it delivers."""

    def counts(self) -> Counts:
        """Count the messages by state, in one atomic operation."""
        raise NotImplementedError(f"{type(self).__qualname__} must define counts()")

    def consumer(self, lease: float) -> Consumer:
        """Open a consumer; ``lease`` is how long its reservations last, in seconds."""
        raise NotImplementedError(f"{type(self).__qualname__} must define consumer()")

    def browse(self, state: State, limit: int, after: Entry | None = None) -> list[Entry]:
        """List up to ``limit`` messages in a state, oldest first, without reserving them.

        ``after``: the last entry of the previous page. A message that stays in this state is listed at least once,
        even if the queue changes between two pages.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define browse()")

    def bookmark(self, entry: Entry) -> list[Any]:
        """Return an entry without its payload, as JSON can store it."""
        return [entry.state, entry.key, entry.due, entry.deliveries]

    def entry_at(self, bookmark: list[Any]) -> Entry:
        """Return the entry of a bookmark; its payload is empty. It is accepted by refresh() and browse(after=…)."""
        state, key, due, deliveries = bookmark
        return Entry(tuple(key) if isinstance(key, list) else key, b"", state, due, deliveries)

    def refresh(self, entry: Entry) -> Entry | None:
        """Return a message as it is now, perhaps in another state; None if it is not found where it was listed.

        The payload of ``entry`` is not used.
        """
        after: Entry | None = None
        while page := self.browse(entry.state, 10, after):
            for found in page:
                if found.key == entry.key:
                    return found
            after = page[-1]
        return None

    def is_delayed(self, entry: Entry) -> bool:
        """Return whether a release without a delay makes a due or deferred message available earlier.

        browse() lists such messages first in their state.
        """
        return entry.state == "deferred"

    def warnings(self) -> list[str]:
        """Return a sentence for each way in which the engine, as it is configured, may lose or delay mail.

        Raises QueueUnavailable.
        """
        return []

    @property
    def dead_name(self) -> str:
        """The name of the dead queue, an ordinary queue of the same engine."""
        return f"{self.name}_DEAD"

    @property
    def paused_name(self) -> str:
        """The name of the queue that holds the reason of a pause, an ordinary queue of the same engine."""
        return f"{self.name}_PAUSED"
