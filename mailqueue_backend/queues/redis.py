"""Redis: the list of queue-front's redisd, with a lease on each message that is handed out.

What waits is one list, which redisd and 0.1.2 may write to and read from at the same time. What is reserved
or deferred stands beside it, see redis_script. Redis Cluster is not supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from secrets import token_hex
from time import monotonic
from typing import Any, NamedTuple, cast

from ..errors import ConfigurationError, QueueUnavailable
from ..settings import conf
from .base import Counts, MessageQueue, Reservation
from .redis_client import TIMEOUT, driver, server
from .redis_script import keys
from .unavailable import unavailable_as_in_queue_front

#: Seconds for which read() holds a message on its way out.
READ_LEASE = 60


class Receipt(NamedTuple):
    """What holds a message."""

    #: Its name in Redis. We choose it, so that asking again for a lost answer gets the same answer.
    id: str
    #: The lease does not end before, on time.monotonic().
    until: float


class Queue(MessageQueue):
    """A queue on the Redis of MAIL_QUEUE_REDIS_URL."""

    #: Where the address comes from, for error messages.
    settings = "MAIL_QUEUE_REDIS_URL"

    def __init__(self, name: str = "default") -> None:
        super().__init__(name)
        self._keys = keys(name, self.dead_name)
        #: What reserve() may take, in the script's words.
        self._which = "due"
        self._redis = driver()
        try:
            self._server = server(self._url())
        except (ValueError, TypeError, self._redis.RedisError):
            # Not their text, which may quote the password.
            raise ConfigurationError(f"{self.settings} in your settings is not what redis-py understands.") from None

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store all or nothing. When the answer is lost, all may have been stored: it is not tried again."""
        with self._translated_errors():
            if payloads:
                self._server.client.rpush(self.name, *payloads)
        return [True] * len(payloads)

    def read(self) -> bytes | None:
        """Take one out; if that breaks off half-way it is not lost, but back after a minute."""
        reservation = self._reserve(READ_LEASE, "early")
        if reservation is None:
            return None
        self.ack(reservation)
        return reservation.payload

    def counts(self) -> Counts:
        """Count; a message of the dead queue that is in someone's hand is not seen."""
        (due, deferred, reserved, dead), _ = self._run("counts")
        return Counts(due + deferred, due, deferred, reserved, dead)

    def reserve(self, lease: float) -> Reservation | None:
        """Borrow the message whose lease ended first, else the head of the list."""
        return self._reserve(lease, self._which)

    def ack(self, reservation: Reservation) -> bool:
        """Forget it."""
        return self._settle("ack", reservation)

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both at once."""
        held, receipt = _receipt(reservation), _new_receipt(lease)
        (found, taken), again = self._run("ack_and_reserve", held.id, receipt.id, _microseconds(lease), self._which)
        return _is_settled(held, found, again), _reservation(receipt, taken)

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Put it at the tail of the list, or with a delay among the deferred."""
        new_payload = [] if payload is None else [payload]
        return self._settle("release", reservation, _microseconds(delay), *new_payload)

    def bury(self, reservation: Reservation) -> bool:
        """Move it to the tail of the dead queue's list."""
        return self._settle("bury", reservation)

    def without_expired(self) -> Queue:
        """Give the same queue, where reserve() takes from the list alone."""
        duplicate = copy(self)
        duplicate._which = "fresh"
        return duplicate

    def _reserve(self, lease: float, which: str) -> Reservation | None:
        receipt = _new_receipt(lease)
        taken, _ = self._run("reserve", receipt.id, _microseconds(lease), which)
        return _reservation(receipt, taken)

    def _settle(self, operation: str, reservation: Reservation, *arguments: int | bytes) -> bool:
        held = _receipt(reservation)
        found, again = self._run(operation, held.id, *arguments)
        return _is_settled(held, found, again)

    def _run(self, operation: str, *arguments: str | int | bytes) -> tuple[Any, bool]:
        """Give the answer of an operation of the script, and whether it had to be asked for again.

        Each can be asked for twice without harm, so a lost connection need not stop a drain.
        """
        with self._translated_errors():
            try:
                return self._server.script(self._keys, [operation, *arguments]), False
            except (self._redis.ConnectionError, self._redis.TimeoutError):
                return self._server.script(self._keys, [operation, *arguments]), True

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except self._redis.RedisError as error:
            self._server.hang_up()
            raise self._unavailable_class()(
                f"The queue {self.name} cannot use Redis at {self._server.address}: {str(error).rstrip('.')}. "
                f"Check that it runs there, can be reached and has room, and check {self.settings} in your settings."
            ) from error

    def _unavailable_class(self) -> type[QueueUnavailable]:
        return QueueUnavailable

    def _url(self) -> str:
        if not conf.MAIL_QUEUE_REDIS_URL:
            raise ConfigurationError(
                'The Redis queue needs MAIL_QUEUE_REDIS_URL in your settings, such as "redis://localhost:6379/0".'
            )
        return conf.MAIL_QUEUE_REDIS_URL


class RedisdQueue(Queue):
    """The same on queue-front's settings, for ``QUEUE_BACKEND = "redisd"``; its error is queue-front's as well."""

    settings = "QUEUE_REDIS_CONNECTION (host:port), QUEUE_REDIS_DB or QUEUE_REDIS_TIMEOUT"

    def _unavailable_class(self) -> type[QueueUnavailable]:
        return unavailable_as_in_queue_front()

    def _url(self) -> str:
        address, timeout = conf.QUEUE_REDIS_CONNECTION or "", conf.QUEUE_REDIS_TIMEOUT or TIMEOUT
        if ":" not in address:
            raise ConfigurationError('QUEUE_REDIS_CONNECTION in your settings must be like "localhost:6379".')
        return f"redis://{address}?db={conf.QUEUE_REDIS_DB or 0}&socket_timeout={timeout}"


def _new_receipt(lease: float) -> Receipt:
    return Receipt(token_hex(16), monotonic() + lease)


def _receipt(reservation: Reservation) -> Receipt:
    return cast(Receipt, reservation.receipt)


def _reservation(receipt: Receipt, taken: tuple[bytes, int] | None) -> Reservation | None:
    return None if taken is None else Reservation(taken[0], receipt, taken[1])


def _is_settled(held: Receipt, found: int, again: bool) -> bool:
    """Tell whether we have settled it: asked again, it may be gone because the first time worked.

    Nobody else can have taken it before its lease ended.
    """
    return bool(found) or (again and monotonic() < held.until)


def _microseconds(seconds: float) -> int:
    return round(seconds * 1_000_000)
