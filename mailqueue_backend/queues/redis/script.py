"""Run the Lua script on the keys of a queue; script.lua describes their layout."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from ...errors import QueueUnavailable
from .client import Server, driver

#: The files that make up the script, in this order.
FILES = ("script", "settle", "reserve", "browse", "operations")

#: An argument of the script.
Argument = str | int | bytes


class Script:
    """The script on the keys of one queue. Each of its operations can safely be repeated."""

    def __init__(self, server: Server, name: str, dead_name: str, translate: Callable[[Exception], QueueUnavailable]):
        #: The keys of the queue, in the script's order.
        self.keys = [
            name,
            *(f"{{{name}}}:{part}" for part in ("payloads", "leases", "deliveries", "deferred")),
            dead_name,
        ]
        self.server = server
        self._translate = translate
        self._redis = driver()

    def run(self, call: list[Argument], execute: Callable[..., Any] | None = None) -> Any:
        """Call the script with ``[operation, 0, *arguments]`` and return the answer.

        If the connection fails, change ``call`` to ``[operation, 1, *arguments]`` and try once more, so that a restart
        of the server does not stop a drain. ``execute`` sends a command, by default over a connection of the pool.
        """
        execute = execute or self.server.client.execute_command
        try:
            try:
                return self._evaluate(execute, call)
            except (self._redis.ConnectionError, self._redis.TimeoutError):
                call[1] = 1
                return self._evaluate(execute, call)
        except self._redis.RedisError as error:
            raise self._translate(error) from error

    def _evaluate(self, execute: Callable[..., Any], call: list[Argument]) -> Any:
        """Call the script; send its text only if the server does not have it. redis-py's own Script is slower."""
        script = _source()
        try:
            return execute("EVALSHA", script.sha, len(self.keys), *self.keys, *call)
        except self._redis.exceptions.NoScriptError:
            return execute("EVAL", script.text, len(self.keys), *self.keys, *call)


def microseconds(seconds: float) -> int:
    """Convert seconds to the script's unit of time."""
    return round(seconds * 1_000_000)


class _Source(NamedTuple):
    text: str
    #: The SHA-1 of the text, by which Redis knows the script.
    sha: str


@cache
def _source() -> _Source:
    directory = files(__package__)
    text = "\n".join(directory.joinpath(f"{name}.lua").read_text(encoding="utf-8") for name in FILES)
    return _Source(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
