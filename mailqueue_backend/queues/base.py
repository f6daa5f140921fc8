"""The contract of a mail queue: what each engine promises.

A queue holds payloads (bytes) and never learns what they mean. ``read()`` and ``write()`` are queue-front's surface.
Deliveries go through a consumer, which reserves payloads for a lease: until a payload is settled, it is neither lost
when the process dies nor handed to another consumer. Any method may raise QueueUnavailable.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from secrets import token_hex
from types import TracebackType
from typing import Any, Literal, NamedTuple

#: ack: done, forget it. release: back to the tail. bury: to the dead queue, bytes unchanged. put_back: was not begun,
#: back to its place with the count of deliveries that it had. leave: stays reserved until its lease ends.
How = Literal["ack", "release", "bury", "put_back", "leave"]
#: The states of a message that browse() lists.
State = Literal["due", "deferred", "reserved", "dead"]

#: One exchange hands out no further payload once those it hands out have so many bytes.
EXCHANGE_BYTES = 1_000_000


class Reservation(NamedTuple):
    """One payload, reserved by one consumer until its lease ends."""

    payload: bytes
    #: The engine's proof of who holds it; hashable, and opaque to everyone else.
    receipt: Any
    #: How often it was handed out without being settled, this time included: 1 at first. Only consumers that die
    #: raise it, so a reservation with more than 1 is a suspect.
    deliveries: int


class Settlement(NamedTuple):
    """What becomes of a reservation."""

    reservation: Reservation
    how: How
    #: The new bytes of a released message; None: as they were.
    payload: bytes | None = None
    #: Seconds after which a released message is due.
    delay: float = 0


class Exchange(NamedTuple):
    """The answer to Consumer.exchange()."""

    #: For each settlement, in order, whether it took place; False: the lease was lost, and nothing changed.
    settled: list[bool]
    reservations: list[Reservation]
    #: The engine's connection died: what this consumer held before will come again, so drop what was not begun.
    lost: bool = False
    #: A suspect is due; it is handed out once this consumer holds nothing.
    suspect_waiting: bool = False


class Entry(NamedTuple):
    """One message as browse() shows it."""

    #: Identifies the message to browse(after=…) and take(); opaque to everyone else.
    key: Any
    payload: bytes
    state: State
    #: When it is or was due, or when its lease ends, in seconds since 1970 on the engine's clock; None: not known.
    due: float | None
    #: How often it was handed out without being settled.
    deliveries: int


class Counts(NamedTuple):
    """How many messages a queue holds, by state; waiting = due + deferred."""

    waiting: int
    #: Can be reserved now, expired leases included.
    due: int
    #: Released with a delay that has not passed.
    deferred: int
    #: Held by a consumer.
    reserved: int
    #: In the dead queue.
    dead: int


class Consumer:
    """One consumer's connection to a queue, for one thread; it settles only what it has reserved. A context manager.

    However a call ends, by an exception or an interrupt at any line, close() leaves nothing behind that is held.
    """

    def __init__(self, queue: MessageQueue, lease: float) -> None:
        self.lease = lease
        #: What this consumer holds, by receipt, oldest hand-out first.
        self.held: dict[Any, Reservation] = {}
        self._queue = queue
        #: The name of an exchange whose answer has not been seen; "": there is none.
        self._pending = ""

    def exchange(self, settlements: Sequence[Settlement] = (), wanted: int = 0) -> Exchange:
        """Settle, and reserve up to ``wanted`` further messages that are due, oldest first.

        A suspect comes alone, and only when this consumer holds nothing else; while it holds one, want nothing more.
        After an error, call it again: what took place then is not repeated, and what was reserved then is returned.
        """
        repeated = bool(self._pending)
        self._pending = self._pending or token_hex(16)
        answer = self._exchange(self._pending, settlements, wanted, repeated)
        for settlement in settlements:
            self.held.pop(settlement.reservation.receipt, None)
        if answer.lost:
            self.held.clear()
        for reservation in answer.reservations:
            self.held[reservation.receipt] = reservation
        self._pending = ""
        return answer

    def extend(self, reservations: Iterable[Reservation]) -> None:
        """Renew the leases of these reservations; skip those already lost."""

    def keep_alive(self) -> None:
        """Show the engine that this consumer lives; call it every few seconds while waiting."""

    def take(self, entry: Entry) -> Reservation | None:
        """Reserve exactly this message of browse(); None when it is gone or reserved.

        A dead one belongs to a consumer of the dead queue, where it is due.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define take()")

    def close(self) -> None:
        """Put back whatever is still held. May be called again, also after an interrupt or an error."""
        if self._pending:
            self.exchange()  # learn first what it has reserved: what is put back together keeps its order
        while self._pending or self.held:
            self.exchange([Settlement(reservation, "put_back") for reservation in self.held.values()])

    def __enter__(self) -> Consumer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, repeated: bool) -> Exchange:
        """Do what exchange() promises; ``name`` is the same for as long as no answer was seen, and then never again.

        ``repeated``: it was asked before, and may have been carried out. Then a settlement that finds nothing within
        its lease took place, and what the name has reserved is returned, and nothing else is reserved.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define _exchange()")


class MessageQueue:
    """A named queue of payloads.

    Two objects of the same class and name are the same queue. Its methods may be called from any thread.
    """

    #: A reservation whose consumer died is handed out again when its lease ends.
    leases = True
    #: A release with a delay is honoured; otherwise the message is due at once.
    delays = True
    #: write_many() stores all or nothing.
    atomic_batches = True
    #: browse() and take() work.
    browsable = True
    #: counts() is exact.
    counts_exactly = True
    #: put_back puts a message where it was; otherwise at the tail.
    keeps_place = True
    #: Only a consumer that dies raises Reservation.deliveries; otherwise a lost connection does so too.
    counts_only_deaths = True

    def __init__(self, name: str = "default") -> None:
        self.name = name

    @property
    def parallel(self) -> bool:
        """Messages of this queue may be delivered by several threads now, of which one alone uses the consumer."""
        return True

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__} {self.name}>"

    # queue-front's surface

    def write(self, payload: bytes) -> bool:
        """Store one payload at the tail."""
        return self.write_many(payload)[0]

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads at the tail, in this order; True for each."""
        raise NotImplementedError(f"{type(self).__qualname__} must define write_many()")

    def read(self) -> bytes | None:
        """Take a payload out for good: whatever len() counts, due ones first; None when there is nothing."""
        raise NotImplementedError(f"{type(self).__qualname__} must define read()")

    def read_many(self, amount: int) -> list[bytes]:
        """Take out up to ``amount`` payloads; fewer when there are no more."""
        payloads: list[bytes] = []
        while len(payloads) < amount and (payload := self.read()) is not None:
            payloads.append(payload)
        return payloads

    def __len__(self) -> int:
        """Count what waits: due and deferred messages and expired leases, not those that are reserved."""
        return self.counts().waiting

    # deliveries

    def counts(self) -> Counts:
        """Count the messages by state, in one look."""
        raise NotImplementedError(f"{type(self).__qualname__} must define counts()")

    def consumer(self, lease: float) -> Consumer:
        """Open a consumer whose reservations have leases of so many seconds."""
        raise NotImplementedError(f"{type(self).__qualname__} must define consumer()")

    def browse(self, state: State, limit: int, after: Entry | None = None) -> list[Entry]:
        """List up to ``limit`` messages in a state, oldest first, without reserving them; ``after``: the next page.

        What is in this state all the time is listed at least once, whatever others do between two pages.
        """
        raise NotImplementedError(f"{type(self).__qualname__} must define browse()")

    @property
    def dead_name(self) -> str:
        """Name of the dead queue, an ordinary queue of the same engine."""
        return f"{self.name}_DEAD"
