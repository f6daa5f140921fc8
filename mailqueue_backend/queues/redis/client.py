"""How this process talks to a Redis server: where it is, how long to wait, and never a command twice by itself."""

from __future__ import annotations

import socket
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

from ...errors import ConfigurationError

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

    def hang_up(self) -> None:
        """Make the next commands connect anew: after a failover another server has the address."""
        self.client.connection_pool.disconnect(inuse_connections=False)


class Connection:
    """One connection beside the pool, whose size the site may have limited. Not for threads."""

    def __init__(self, server: Server) -> None:
        pool = server.client.connection_pool
        self._connection: Any = pool.connection_class(**pool.connection_kwargs)
        #: A command was sent, or half of it, and its answer was not read.
        self._unread = False

    def execute(self, *command: str | int | bytes) -> Any:
        """Send a command and return its answer; connect anew after an error or an interrupt."""
        if self._unread:
            self.close()
        self._unread = True
        self._connection.send_command(*command)
        answer = self._connection.read_response()
        self._unread = False
        return answer

    def close(self) -> None:
        """Hang up. The next command connects anew."""
        self._connection.disconnect()


@cache
def server(url: str) -> Server:
    """Return the one client for this URL; nothing is connected before its first command.

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
    """Return the arguments of a connection pool: our defaults, what the URL says, and what it may not change."""
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
