"""Adapt any queue-front queue that has ``read()``, ``write()`` and ``len()``.

Such a queue removes a payload when it hands it out. Until the payload is settled, it exists only in this process, so
``kill -9`` loses it. Exceptions and interrupts do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from secrets import token_hex
from typing import Any, NoReturn
from weakref import WeakValueDictionary

from ..errors import QueueUnavailable, interrupts
from .base import EXCHANGE_BYTES, Consumer, Counts, Exchange, MessageQueue, Reservation, Settlement
from .errors import unavailable_as_in_queue_front

#: Maximum number of reads of a queue that is not empty but returns nothing.
ATTEMPTS = 3
#: The open consumers of this process, by class and name of their queue.
_CONSUMERS: dict[tuple[type, str], WeakValueDictionary[int, PlainConsumer]] = {}


class PlainQueue(MessageQueue):
    """A queue-front queue as a MessageQueue: reserving reads, an ack does nothing, and all other settlements write."""

    leases = False
    delays = False
    atomic_batches = False
    browsable = False
    pausable = False
    keeps_place = False

    def __init__(self, queue: Any) -> None:
        super().__init__(queue.name)
        self.module_queue = queue
        self.consumers = _CONSUMERS.setdefault((type(queue), queue.name), WeakValueDictionary())

    @property
    def parallel(self) -> bool:
        """False: the module may not be thread-safe."""
        return False

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store the payloads, in a single call if the module supports it; return True for each."""
        if len(payloads) < 2 or not self._write_together(payloads):
            self._write_singly(payloads)
        return [True] * len(payloads)

    def _write_together(self, payloads: tuple[bytes, ...]) -> bool:
        """Call the module's own write_many(); return False if it has none."""
        write_many = getattr(self.module_queue, "write_many", None)
        if write_many is None:
            return False
        try:
            if False in (write_many(*payloads) or ()):
                _refuse()
        except NotImplementedError:
            return False
        except interrupts():
            raise
        except Exception as error:
            raise self.unavailable(f"may not have stored all of {len(payloads)} messages", error) from error
        return True

    def _write_singly(self, payloads: tuple[bytes, ...]) -> None:
        for stored, payload in enumerate(payloads):
            try:
                if self.module_queue.write(payload) is False:
                    _refuse()
            except interrupts():
                raise
            except Exception as error:
                raise self.unavailable(f"has stored {stored} of {len(payloads)} messages", error) from error

    def read(self) -> bytes | None:
        """Remove a payload and return it; return None if the queue is empty."""
        payloads: list[bytes] = []
        self.read_into(payloads)
        return payloads[0] if payloads else None

    def read_into(self, payloads: list[bytes]) -> bool:
        """Append the next payload; return False if the queue is empty.

        A single expression reads and appends, so that an interrupt cannot lose the payload. An empty queue may return
        None, or raise IndexError or QueueException.
        """
        length = len(payloads)
        attempts_left = ATTEMPTS
        while True:
            attempts_left -= 1
            try:
                # iter() ends at the first None, so nothing is appended for it.
                payloads.extend(islice(iter(self.module_queue.read, None), 1))
                return len(payloads) > length
            except IndexError:
                return False
            except interrupts():
                raise
            except Exception as error:
                # A QueueException may mean that the queue is empty. If it is broken, len() or the next reads fail too.
                may_be_empty = _is_queue_exception(error)
                if may_be_empty and not len(self):
                    return False
                if not (may_be_empty and attempts_left):
                    raise self.unavailable("cannot be read", error) from error

    def __len__(self) -> int:
        """Return the module's count."""
        try:
            return len(self.module_queue)
        except interrupts():
            raise
        except Exception as error:
            raise self.unavailable("cannot be counted", error) from error

    def counts(self) -> Counts:
        """Count the messages by state; only the consumers of this process count as reserved."""
        waiting = len(self)
        consumers = [consumer for reference in self.consumers.valuerefs() if (consumer := reference())]
        reserved = sum(len(consumer.held) for consumer in consumers)
        try:
            dead = len(self.sibling(self.dead_name))
        except QueueUnavailable:  # a site's class may require more arguments than a name
            dead = 0
        return Counts(waiting, due=waiting, deferred=0, reserved=reserved, dead=dead)

    def consumer(self, lease: float) -> PlainConsumer:
        """Open a consumer; its leases do not end."""
        return PlainConsumer(self, lease)

    def sibling(self, name: str) -> PlainQueue:
        """Open another queue of the same module."""
        try:
            return type(self)(type(self.module_queue)(name))
        except interrupts():
            raise
        except Exception as error:
            raise self.unavailable(f"cannot open the queue {name}", error) from error

    def unavailable(self, what: str, cause: object) -> QueueUnavailable:
        """Return the error to raise for this queue; ``what`` completes "The queue …"."""
        return unavailable_as_in_queue_front()(
            f"The queue {self.name} ({type(self.module_queue).__module__}) {what}: {cause}"
        )


class PlainConsumer(Consumer):
    """A consumer whose reservations exist only in this process.

    A message that cannot be written stays reserved, and the next exchange or close() tries again.
    """

    def __init__(self, queue: PlainQueue, lease: float) -> None:
        super().__init__(queue, lease)
        self._plain = queue
        #: The name of the current or latest exchange.
        self._name = ""
        #: The payloads that this exchange has read.
        self._payloads: list[bytes] = []
        #: Its reservations of these payloads.
        self._reserved: list[Reservation] = []
        #: By receipt, whether its settlement took place.
        self._settled: dict[Any, bool] = {}
        queue.consumers[id(self)] = self

    def close(self) -> None:
        """Put back all reservations, and unregister."""
        super().close()
        self._plain.consumers.pop(id(self), None)

    def _exchange(self, name: str, settlements: Sequence[Settlement], wanted: int, is_repeated: bool) -> Exchange:
        if name != self._name:
            for receipt in self._settled:
                self.held.pop(receipt, None)  # exchange() does not do so after an interrupt
            self._payloads, self._reserved, self._settled, self._name = [], [], {}, name
        for settlement in settlements:
            if settlement.reservation.receipt not in self._settled:
                self._settle(settlement)
        while not is_repeated and len(self._payloads) < wanted and sum(map(len, self._payloads)) < EXCHANGE_BYTES:
            if not self._plain.read_into(self._payloads):
                break
        for payload in self._payloads[len(self._reserved) :]:
            self._reserved.append(Reservation(payload, token_hex(8), deliveries=1))
        return Exchange(
            [self._settled[settlement.reservation.receipt] for settlement in settlements],
            [reservation for reservation in self._reserved if reservation.receipt not in self._settled],
        )

    def _settle(self, settlement: Settlement) -> None:
        """Write a message back, and record it in the same expression, so that an interrupt cannot duplicate it.

        "leave" and "put_back" move a message to the tail, since there is no lease to end and no place to return to.
        """
        reservation, how, payload, _ = settlement
        if how == "ack" or reservation.receipt not in self.held:
            self._settled[reservation.receipt] = reservation.receipt in self.held
            return
        if payload is None or how != "release":
            payload = reservation.payload
        queue = self._plain.sibling(self._plain.dead_name) if how == "bury" else self._plain
        try:
            self._settled[reservation.receipt] = queue.module_queue.write(payload) is not False or _refuse()
        except interrupts():
            raise
        except Exception as error:
            raise queue.unavailable("has not stored a message", error) from error


def _refuse() -> NoReturn:
    raise ValueError("the queue refused one")


def _is_queue_exception(error: Exception) -> bool:
    from queue_front import QueueException

    return isinstance(error, QueueException)
