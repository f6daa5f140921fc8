"""What a drain may still take: so many messages, for so long, so fast, and not when it is asked to stop."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from threading import Lock
from time import monotonic

from ..settings import conf
from .stopping import StopRequest


@dataclass
class DrainOptions:
    """What one drain is asked to do differently from the settings."""

    #: Messages at most.
    limit: int | None = None
    #: Seconds after which no further message is begun.
    time_limit: float | None = None
    #: Connections at most; None: MAIL_QUEUE_WORKERS.
    workers: int | None = None
    #: Asks the drain to end.
    stop: StopRequest = field(default_factory=StopRequest)


class Quota:
    """Admits the workers of one drain to one message after the other."""

    def __init__(self, messages: int, options: DrainOptions) -> None:
        self._left = self.messages = messages if options.limit is None else min(messages, options.limit)
        self._until = math.inf if options.time_limit is None else monotonic() + options.time_limit
        self._stop = options.stop
        #: Seconds between two messages.
        self._interval = 1 / conf.MAIL_QUEUE_RATE if conf.MAIL_QUEUE_RATE else 0.0
        self._next = monotonic()
        self._lock = Lock()

    def admit(self) -> bool:
        """Let a worker take a message, when its turn has come; False when the drain is over."""
        turn = self._draw()
        return turn is not None and not self._stop.wait(turn - monotonic()) and not self._over(monotonic())

    def admit_at_once(self) -> bool:
        """As admit(), but False as well when the worker would have to wait for its turn."""
        return not self._interval and self.admit()

    def put_back(self) -> None:
        """A message was not tried: another worker may take it."""
        with self._lock:
            self._left += 1

    def close(self) -> None:
        """Admit nobody any more."""
        self._until = 0

    def _draw(self) -> float | None:
        """Take one from what is left, and tell when its turn is; None when there is none in time."""
        with self._lock:
            turn = max(self._next, monotonic())
            if not self._left or self._over(turn):
                return None
            self._left -= 1
            self._next = turn + self._interval
        return turn

    def _over(self, moment: float) -> bool:
        return bool(self._stop) or moment >= self._until
