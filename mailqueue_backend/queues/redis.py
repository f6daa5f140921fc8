"""Redis: the list of queue-front's redisd, with a lease on each message that is handed out.

What waits is one list, which redisd and 0.1.2 may write to and read from at the same time. What is reserved
or deferred stands beside it, see redis_script. Redis Cluster is not supported.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from typing import Any

from ..errors import ConfigurationError, QueueUnavailable
from ..settings import conf
from .base import Counts, MessageQueue, Reservation
from .redis_client import TIMEOUT, Line, driver, server
from .redis_prefetch import PrefetchingQueue
from .redis_receipts import Receipt, as_reservation, is_settled, microseconds, new_receipt, receipt_of
from .redis_script import keys
from .unavailable import unavailable_as_in_queue_front

#: Seconds for which read() holds a message on its way out.
READ_LEASE = 60


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
        receipt = new_receipt(READ_LEASE)
        taken, _ = self.run("reserve", receipt.id, microseconds(READ_LEASE), "early")
        if taken is None:
            return None
        self.run("ack", receipt.id)
        payload: bytes = taken[0]
        return payload

    def counts(self) -> Counts:
        """Count; a message of the dead queue that is in someone's hand is not seen."""
        (due, deferred, reserved, dead), _ = self.run("counts")
        return Counts(due + deferred, due, deferred, reserved, dead)

    def reserve(self, lease: float) -> Reservation | None:
        """Borrow the message whose lease ended first, else the head of the list."""
        receipt = new_receipt(lease)
        taken, _ = self.run(*self.question(receipt, lease))
        return as_reservation(receipt, taken)

    def ack(self, reservation: Reservation) -> bool:
        """Forget it."""
        return self._settle("ack", reservation)

    def ack_and_reserve(self, reservation: Reservation, lease: float) -> tuple[bool, Reservation | None]:
        """Do both at once."""
        held, receipt = receipt_of(reservation), new_receipt(lease)
        (found, taken), again = self.run(*self.question(receipt, lease, held))
        return is_settled(held, found, again), as_reservation(receipt, taken)

    def release(self, reservation: Reservation, payload: bytes | None = None, delay: float = 0) -> bool:
        """Put it at the tail of the list, or with a delay among the deferred."""
        new_payload = [] if payload is None else [payload]
        return self._settle("release", reservation, microseconds(delay), *new_payload)

    def bury(self, reservation: Reservation) -> bool:
        """Move it to the tail of the dead queue's list."""
        return self._settle("bury", reservation)

    def without_expired(self) -> Queue:
        """Give the same queue, where reserve() takes from the list alone."""
        duplicate = copy(self)
        duplicate._which = "fresh"
        return duplicate

    def prefetching(self) -> PrefetchingQueue:
        """Give a queue that has the next message at hand."""
        return PrefetchingQueue(self)

    def put_back(self, reservation: Reservation) -> bool:
        """Let it be as if it had not been reserved."""
        return self._settle("put_back", reservation, reservation.deliveries - 1)

    # the script

    def line(self) -> Line:
        """Give a connection for calls whose answer is read later."""
        return Line(self._server, self._keys)

    def question(self, receipt: Receipt, lease: float, held: Receipt | None = None) -> list[str | int]:
        """Word the operation that reserves a message, and forgets the one that is held."""
        acked = [] if held is None else [held.id]
        operation = "reserve" if held is None else "ack_and_reserve"
        return [operation, *acked, receipt.id, microseconds(lease), self._which]

    def _settle(self, operation: str, reservation: Reservation, *arguments: int | bytes) -> bool:
        held = receipt_of(reservation)
        found, again = self.run(operation, held.id, *arguments)
        return is_settled(held, found, again)

    def run(self, *arguments: str | int | bytes) -> tuple[Any, bool]:
        """Give the answer of an operation of the script, and whether it had to be asked for again.

        Each can be asked for twice without harm, so a lost connection need not stop a drain.
        """
        with self._translated_errors():
            try:
                return self._server.script(self._keys, arguments), False
            except (self._redis.ConnectionError, self._redis.TimeoutError):
                return self._server.script(self._keys, arguments), True

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
