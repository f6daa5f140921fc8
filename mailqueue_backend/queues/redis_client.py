"""How this process talks to a Redis server: where it is, how long to wait, and never a command twice by itself."""

from __future__ import annotations

import hashlib
import socket
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from .redis_script import SCRIPT

#: What Redis calls the script.
SHA = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()
#: Seconds to connect, all addresses of the host together. A lost first packet is sent again after one.
CONNECT_TIMEOUT = 1.2
#: Seconds to send a command, and as many to wait for its answer. A write takes at most all three: under 5.
TIMEOUT = 1.8
#: The kernel finds out within 45 seconds that the other end of an idle connection is gone.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Server(NamedTuple):
    """A Redis server as this process uses it: safe for threads and after a fork."""

    #: For people: without user and password.
    address: str
    #: A redis.Redis.
    client: Any

    def script(self, keys: Sequence[str], arguments: Sequence[str | int | bytes]) -> Any:
        """Call the script, which the server may have lost. redis-py's own Script is slower."""
        call = [len(keys), *keys, *arguments]
        try:
            return self.client.execute_command("EVALSHA", SHA, *call)
        except driver().exceptions.NoScriptError:
            return self.client.execute_command("EVAL", SCRIPT, *call)

    def hang_up(self) -> None:
        """Have the next commands connect anew: after a failover another server has the address."""
        self.client.connection_pool.disconnect(inuse_connections=False)


class Line:
    """A connection of its own, over which the script is called now and its answer read later. Not for threads."""

    def __init__(self, server: Server, keys: Sequence[str]) -> None:
        pool = server.client.connection_pool
        #: Beside the pool, whose size the site may have limited.
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)
        self._keys = keys
        #: Why there is no answer to read.
        self._error: Exception | None = driver().ConnectionError("Nothing was sent")

    def send(self, arguments: Sequence[str | int | bytes]) -> None:
        """Send a call. If that fails, read() says so."""
        try:
            self._renew()
            self._connection.send_command("EVALSHA", SHA, len(self._keys), *self._keys, *arguments)
            self._error = None
        except driver().RedisError as error:
            self._error = error

    def read(self) -> Any:
        """Read the answer. Raises redis-py's RedisError where the call has to be made again."""
        error, self._error = self._error, driver().ConnectionError("Nothing was sent")
        if error is not None:
            raise error
        try:
            return self._connection.read_response()
        except driver().RedisError:
            self.close()
            raise

    def close(self) -> None:
        """Hang up. The next call connects anew."""
        self._connection.disconnect()

    def _renew(self) -> None:
        """Hang up when the server has: what is sent to it would be lost without a word."""
        try:
            ended = self._connection.can_read()
        except driver().RedisError:
            ended = True
        if ended:
            self.close()


@cache
def server(url: str) -> Server:
    """Give the one client for this URL; nothing is connected before its first command.

    Raises ValueError or TypeError, whose text may quote the password, when the URL is wrong.
    """
    redis = driver()
    options = _options(redis, url)
    pool = redis.ConnectionPool(**options)
    pool.connection_class(**pool.connection_kwargs)  # An unknown option fails here, not at the first message.
    client = redis.Redis(connection_pool=pool)
    address = options.get("path") or f"{options['host']}:{options['port']}"
    return Server(address, client)


def driver() -> ModuleType:
    """Import redis-py, an extra of this package."""
    try:
        return import_module("redis")
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            'The Redis queue needs redis-py: pip install "django-mailqueue-backend[redis]".'
        ) from error


def _options(redis: ModuleType, url: str) -> dict[str, Any]:
    """Give the arguments for a connection pool: ours, unless the URL has its own, and those that are not its to set."""
    options = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "max_connections": 2**31,  # redis-py >= 8: 100, and the 101st thread gets an error.
        **redis.connection.parse_url(url),
        "decode_responses": False,
        "protocol": 2,  # redis-py >= 8: 3, which Redis 5 does not know.
        "retry": redis.retry.Retry(redis.backoff.NoBackoff(), 0),  # A write must not be repeated.
    }
    connection_class = options.get("connection_class", redis.Connection)
    if issubclass(connection_class, redis.UnixDomainSocketConnection):
        return options
    keepalive = {getattr(socket, name): value for name, value in KEEPALIVE.items() if hasattr(socket, name)}
    return {
        "host": "localhost",
        "port": 6379,
        "socket_keepalive": True,
        "socket_keepalive_options": keepalive,
        **options,
        "connection_class": type("Connection", (_OneConnectTimeout, connection_class), {}),
    }


class _OneConnectTimeout:
    """A mixin for redis-py's connections, which wait for each address of a host for the whole timeout."""

    host: str
    port: int
    socket_connect_timeout: float

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._connect_timeout = options["socket_connect_timeout"]

    def _connect(self) -> socket.socket:
        addresses = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        self.socket_connect_timeout = self._connect_timeout / len(addresses)
        connected: socket.socket = super()._connect()  # type: ignore[misc]
        return connected
