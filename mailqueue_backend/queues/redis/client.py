"""Connections to a Redis server, with short timeouts and without redis-py's automatic retries."""

from __future__ import annotations

import socket
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from ...errors import ConfigurationError

#: Seconds to connect, over all addresses of the host. TCP resends a lost first packet after one second.
CONNECT_TIMEOUT = 1.2
#: Seconds to send a command, and again to wait for its answer. So a write takes less than 5 seconds in all.
TIMEOUT = 1.8
#: Socket options, in seconds and probes: the kernel detects within 45 seconds that an idle connection is dead.
KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3}


class Server(NamedTuple):
    """The client of a Redis server; safe to use from several threads and after a fork."""

    #: The address for error messages, without user and password.
    address: str
    #: An instance of redis.Redis.
    client: Any

    def hang_up(self) -> None:
        """Make the next commands reconnect: after a failover, another server may have the address."""
        self.client.connection_pool.disconnect(inuse_connections=False)


class Connection:
    """A connection outside the pool, whose size the site may have limited. Not thread-safe."""

    def __init__(self, server: Server) -> None:
        pool = server.client.connection_pool
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)
        #: Whether a command was sent, at least in part, whose answer was not read.
        self._has_unread_answer = False

    def execute(self, *command: str | int | bytes) -> Any:
        """Send a command and return its answer; reconnect if an error or an interrupt ended the previous call."""
        if self._has_unread_answer:
            self.close()
        self._has_unread_answer = True
        self._connection.send_command(*command)
        answer = self._connection.read_response()
        self._has_unread_answer = False
        return answer

    def close(self) -> None:
        """Disconnect; the next command reconnects."""
        self._connection.disconnect()


@cache
def server(url: str) -> Server:
    """Return the shared client for this URL; it connects on its first command.

    Raises ValueError or TypeError if the URL is wrong; their text may contain the password.
    """
    redis = driver()
    options = _options(redis, url)
    pool = redis.ConnectionPool(**options)
    pool.connection_class(**pool.connection_kwargs)  # Fail now if an option is unknown, not at the first message.
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
    """Return the arguments of a connection pool: our defaults, the options of the URL, and those it must not change."""
    options = {
        "socket_timeout": TIMEOUT,
        "socket_connect_timeout": CONNECT_TIMEOUT,
        "max_connections": 2**31,  # redis-py >= 8: the default is 100, and the 101st thread gets an error.
        **redis.connection.parse_url(url),
        "decode_responses": False,
        "protocol": 2,  # redis-py >= 8: the default is 3, which Redis 5 does not support.
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
    """Divide the connect timeout among the addresses of the host; redis-py applies it to each of them."""

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
