"""The breaker: a server that cannot be reached is asked once in a drain, and not once for each message."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class Breaker:
    """Remembers why no connection could be made, and says it again instead of trying again."""

    def __init__(self, connected: Callable[[], None] | None = None) -> None:
        self.error: Exception | None = None
        self._connected = connected

    def connect(self, connect: Callable[[], T]) -> T:
        """Call ``connect``, or raise what it raised the last time."""
        if self.error is not None:
            raise self.error.with_traceback(None)
        try:
            result = connect()
        except Exception as error:  # whatever a transport raises
            self.error = error
            raise
        if self._connected is not None:
            self._connected()
        return result
