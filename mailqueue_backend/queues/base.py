"""The contract of a mail queue: what each engine promises, and what a reservation is.

A queue holds payloads (bytes) and never learns what they mean. ``read()`` and ``write()`` are queue-front's
surface. Deliveries use ``reserve()`` instead, which lends a payload for a lease: until it is settled by
``ack()``, ``release()`` or ``bury()``, it is neither lost when the process dies nor handed to another one.
"""

from __future__ import annotations

from typing import NamedTuple


class Reservation(NamedTuple):
    """One payload, lent to one taker until its lease ends."""

    payload: bytes
    #: The engine's proof of who holds it. Opaque to everyone else.
    receipt: object
    #: How often it was handed out without being settled, this time included: 1 at first.
    deliveries: int


class Counts(NamedTuple):
    """How many messages a queue holds, by state; waiting = due + deferred."""

    waiting: int
    #: Can be reserved now, expired leases included.
    due: int
    #: Released with a delay that has not passed.
    deferred: int
    #: In someone's hand.
    reserved: int
    #: In the dead queue.
    dead: int


class MessageQueue:
    """A named queue of payloads. Any method may raise QueueUnavailable.

    Two objects of the same class and name are the same queue. All methods may be called from any thread.
    """

    #: A reservation whose taker died is handed out again when its lease ends.
    leases = True
    #: release(delay=…) is honoured; otherwise a released message is due at once.
    delays = True
    #: write_many() stores all or nothing.
    atomic_batches = True

    def __init__(self, name: str = "default") -> None:
        self.name = name

    @property
    def parallel(self) -> bool:
        """Several workers of a drain, each in a thread of its own, may take from it now."""
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
        """Count what waits: due and deferred messages and expired leases, not those in someone's hand."""
        return self.counts().waiting

    # deliveries

    def counts(self) -> Counts:
        """Count the messages by state, in one look."""
        raise NotImplementedError(f"{type(self).__qualname__} must define counts()")

    def reserve(self, lease: float) -> Reservation | None:
        """Borrow the oldest message that is due for ``lease`` seconds; None when nothing is due."""
        raise NotImplementedError(f"{type(self).__qualname__} must define reserve()")

    def ack(self, reservation: Reservation) -> bool:
        """Forget a message that is done. False, and nothing changed, when the lease was lost or it is settled."""
        raise NotImplementedError(f"{type(self).__qualname__} must define ack()")

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both, in one round trip where the engine can."""
        return self.ack(reservation), self.reserve(lease)

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Put a message back at the tail, as ``payload`` if given, due after ``delay`` seconds; else as ack()."""
        raise NotImplementedError(f"{type(self).__qualname__} must define release()")

    def bury(self, reservation: Reservation) -> bool:
        """Move a message to the dead queue, its bytes unchanged; else as ack()."""
        raise NotImplementedError(f"{type(self).__qualname__} must define bury()")

    def without_expired(self) -> MessageQueue:
        """Give this queue as one whose reserve() passes over expired leases; itself where the engine has no such view.

        What was in the hand of a process that died may be what killed it: a drain takes it with one worker alone.
        """
        return self

    def prefetching(self) -> MessageQueue:
        """Give this queue for one taker who is alone: it may hold the next message, too, until stop_prefetching()."""
        return self

    def stop_prefetching(self) -> None:
        """Put back the next message. Can be called again."""

    @property
    def dead_name(self) -> str:
        """Name of the dead queue, an ordinary queue of the same engine."""
        return f"{self.name}_DEAD"
