"""A queue in Redis: the list of queue-front's redisd, with a lease on each message that is handed out.

Waiting messages are in a list that redisd and 0.1.2 can read and write at the same time. Reserved and deferred messages
are stored under other keys, see script.lua. Redis Cluster is not supported.
"""

from __future__ import annotations

import copy
import hashlib
from functools import cached_property
from secrets import token_hex
from typing import Any

from ...errors import ConfigurationError, QueueUnavailable
from ...settings import conf
from ..base import Consumer, Counts, Entry, MessageQueue, State
from ..errors import unavailable_as_in_queue_front
from .client import TIMEOUT, driver, server
from .consumer import Consumer as RedisConsumer
from .durability import durability_warnings
from .permissions import denied
from .script import Argument, Script, microseconds

#: Seconds for which read() reserves a message before it deletes it.
READ_LEASE = 60
#: refresh() looks for a message that has moved in a list by up to MOVED places, at STEP places at a time.
MOVED, STEP = 10_000, 50


class Queue(MessageQueue):
    """A queue on the Redis server of MAIL_QUEUE_REDIS_URL."""

    #: The settings that contain the address, for error messages.
    settings = "MAIL_QUEUE_REDIS_URL"
    #: What to write in them.
    hint = 'Write a URL such as "redis://localhost:6379/0", with special characters in the password percent-encoded.'

    def __init__(self, name: str = "default") -> None:
        super().__init__(name)
        redis = driver()
        try:
            self._server = server(self._url())
        except (ValueError, TypeError, redis.RedisError):
            # Drop the original error: its text may contain the password.
            raise ConfigurationError(
                f"redis-py does not understand {self.settings} in your settings.", self.hint
            ) from None
        self._driver_error = redis.RedisError
        self._open()

    def _open(self) -> None:
        self._script = Script(self._server, self.name, self.dead_name, self._unavailable)
        self._keys = self._script.keys

    def sibling(self, name: str) -> Queue:
        """Open another queue on the same server."""
        queue = copy.copy(self)
        vars(queue).pop("_dead", None)
        queue.name = name
        queue._open()
        return queue

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store all payloads or none. There is no retry: if the answer is lost, all may have been stored."""
        try:
            if payloads:
                self._server.client.rpush(self.name, *payloads)
        except self._driver_error as error:
            raise self._unavailable(error) from error
        return [True] * len(payloads)

    def read(self) -> bytes | None:
        """Remove a waiting payload and return it; if interrupted, the message is due again after READ_LEASE."""
        name = token_hex(16)
        taken = self._script.run(["read", 0, name, microseconds(READ_LEASE)])
        if not taken:
            return None
        self._script.run(["exchange", 0, name, 0, 0, 0, 0, 0, "ack", f"{name}:1"])
        payload: bytes = taken[0][1]
        return payload

    def counts(self) -> Counts:
        """Count the messages by state; the dead queue is counted after this one, with those that are reserved there."""
        due, deferred, reserved, dead = self._script.run(["counts", 0])
        # These have no dead messages of their own, whose keys a user would need permissions for.
        if not self.name.endswith(("_DEAD", "_PAUSED")):
            dead = sum(self._dead._script.run(["counts", 0])[:3])
        return Counts(due + deferred, due, deferred, reserved, dead)

    @cached_property
    def _dead(self) -> Queue:
        """The dead queue. An operator who takes a message from it may die, so it has leases, too."""
        return self.sibling(self.dead_name)

    def consumer(self, lease: float) -> Consumer:
        """Open a consumer; it connects to the server on its first exchange."""
        return RedisConsumer(self, lease, self._script)

    def browse(self, state: State, limit: int, after: Entry | None = None) -> list[Entry]:
        """List a page. Due messages are listed in this order: ended leases, deferred messages, the list."""
        if state == "dead":
            page = self._dead.browse("due", limit, after and after._replace(state="due"))
            return [entry._replace(state="dead") for entry in page]
        position: list[Argument] = ["", "", 0, -1, ""]
        if after is not None and after.due is None and not after.payload:
            after = self.refresh(after)  # None: all messages before it have gone, too
        if after is not None and after.due is None:
            position = ["", "", 0, getattr(after.key, "listed_at", 0), after.payload]
        elif after is not None:
            position = [after.key, microseconds(after.due or 0), after.deliveries, -1, ""]
        return [_read_entry(state, *found) for found in self._script.run(["browse", 0, state, limit, *position])]

    def bookmark(self, entry: Entry) -> list[Any]:
        """Add the index at which a message was listed."""
        return [*super().bookmark(entry), getattr(entry.key, "listed_at", None)]

    def entry_at(self, bookmark: list[Any]) -> Entry:
        """Return the entry, with this index."""
        entry = super().entry_at(bookmark[:4])
        return entry if entry.due is not None else entry._replace(key=_list_key(entry.key, bookmark[4]))

    def refresh(self, entry: Entry) -> Entry | None:
        """Find a message by its id, or near the index at which it was listed: it moves when others leave the list."""
        if entry.state == "dead":
            there = self._dead.refresh(entry._replace(state="due"))
            return there and there._replace(state="dead")
        if entry.due is not None:
            for state, *found in self._script.run(["look", 0, entry.key]):
                return _read_entry(state.decode(), *found)
            return None
        listed_at = entry.key.listed_at
        lasts = range(listed_at + STEP, max(listed_at - MOVED, -1), -STEP)
        for first, last in ((listed_at, listed_at), *((max(last - STEP + 1, 0), last) for last in lasts)):
            for found in self._listed(entry.state, first, last):
                if found.key == entry.key:
                    return found
        return None

    def _listed(self, state: State, first: int, last: int) -> list[Entry]:
        try:
            payloads = self._server.client.lrange(self.name, first, last)
        except self._driver_error as error:
            raise self._unavailable(error) from error
        return [_read_entry(state, index, payload, b"", 0) for index, payload in enumerate(payloads, first)]

    def denied(self) -> list[str]:
        """Return the commands and keys that a drain needs and the Redis user may not use; this runs no command."""
        try:
            names = (self.name, self.paused_name)
            return [part for name in names for part in denied(self._server, self.sibling(name)._keys)]
        except self._driver_error as error:
            raise self._unavailable(error) from error

    def is_delayed(self, entry: Entry) -> bool:
        """Return whether a message is outside the list, where redisd and 0.1.2 do not find it, even if it is due."""
        return entry.due is not None

    def warnings(self) -> list[str]:
        """Warn of a server that does not store its data, or may evict it; say nothing if it does not tell."""
        return durability_warnings(self._server.client, self._server.address)

    def _unavailable(self, error: Exception) -> QueueUnavailable:
        self._server.hang_up()
        return self._unavailable_class()(
            f"The queue {self.name} cannot use Redis at {self._server.address}: {str(error).rstrip('.')}. "
            f"Check that the server runs, is reachable and has free memory, and check {self.settings} in your settings."
        )

    def _unavailable_class(self) -> type[QueueUnavailable]:
        return QueueUnavailable

    def _url(self) -> str:
        if not conf.MAIL_QUEUE_REDIS_URL:
            raise ConfigurationError(
                'The Redis queue needs MAIL_QUEUE_REDIS_URL in your settings, such as "redis://localhost:6379/0".'
            )
        return conf.MAIL_QUEUE_REDIS_URL


class RedisdQueue(Queue):
    """The same queue with queue-front's settings and errors, for ``QUEUE_BACKEND = "redisd"``."""

    settings = "QUEUE_REDIS_CONNECTION (host:port), QUEUE_REDIS_DB or QUEUE_REDIS_TIMEOUT"
    hint = 'Write for example QUEUE_REDIS_CONNECTION = "localhost:6379".'

    def _unavailable_class(self) -> type[QueueUnavailable]:
        return unavailable_as_in_queue_front()

    def _url(self) -> str:
        address, timeout = redisd_address(conf.QUEUE_REDIS_CONNECTION), conf.QUEUE_REDIS_TIMEOUT or TIMEOUT
        return f"redis://{address}?db={conf.QUEUE_REDIS_DB or 0}&socket_timeout={timeout}"


def redisd_address(connection: str | None) -> str:
    """Return the value of QUEUE_REDIS_CONNECTION; raise ConfigurationError if it is not host:port."""
    host, colon, port = (connection or "").rpartition(":")
    if colon and port.isdecimal() and not {"/", "@"} & {*host}:
        return f"{host}:{port}"
    # The error does not quote the value, which may contain a password.
    raise ConfigurationError(
        'QUEUE_REDIS_CONNECTION in your settings must be like "localhost:6379", without a scheme or password.',
        'For a URL, write QUEUE_BACKEND = "mailqueue_backend.queues.redis" and MAIL_QUEUE_REDIS_URL = "redis://…".',
    )


class ListKey(str):
    """The key of an entry in a list: the SHA-256 of the payload."""

    #: The index at which the message was listed, and is searched for first.
    listed_at: int


def _read_entry(state: State, index_or_id: int | bytes, payload: bytes, time: bytes, deliveries: int) -> Entry:
    if isinstance(index_or_id, bytes):
        return Entry(index_or_id.decode(), payload, state, float(time) / 1_000_000, deliveries)
    return Entry(_list_key(hashlib.sha256(payload).hexdigest(), index_or_id), payload, state, None, deliveries)


def _list_key(digest: str, index: int) -> ListKey:
    key = ListKey(digest)
    key.listed_at = index
    return key
