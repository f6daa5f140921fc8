"""The limits of a drain: number of messages, time, rate, and requests to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import current_thread, main_thread
from time import monotonic
from typing import Any

from ..settings import conf
from .events import Event
from .troubles import Troubles

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds between two checks for a stop request while StopRequest.wait() sleeps.
POLL_INTERVAL = 0.1


class StopRequest:
    """A request to stop. The first one lets the messages that are being sent finish; the second one aborts them.

    It takes no lock, since a signal handler may call ask() at any point of the program.
    """

    def __init__(self) -> None:
        self.asked = False
        #: The number of the signal that asked the second time; None: not asked twice.
        self.forced_by: int | None = None

    def wait(self, seconds: float) -> bool:
        """Sleep until a stop is requested, or the time is up; return whether a stop is requested."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, POLL_INTERVAL))
        return self.asked

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Request a stop, on behalf of a signal."""
        if self.asked:
            self.forced_by = number
        self.asked = True


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into stop requests within the block, and restore the handlers after it.

    Do nothing outside of the main thread, where Python allows no signal handlers.
    """
    if current_thread() is not main_thread():
        yield
        return

    def handle(number: int, frame: Any) -> None:
        stop.ask(number)

    previous = {number: signal.signal(number, handle) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in previous.items():
            # None: the handler was not installed from Python, which cannot restore it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


@dataclass
class DrainOptions:
    """Options of one drain that override the settings."""

    #: Maximum number of messages.
    limit: int | None = None
    #: Seconds after which no further message is started.
    time_limit: float | None = None
    #: Maximum number of connections; None: MAIL_QUEUE_WORKERS.
    workers: int | None = None
    #: Through it, another thread or a signal handler can stop the drain.
    stop: StopRequest = field(default_factory=StopRequest)
    #: What was already said, for drains that follow each other. None: each drain says everything.
    troubles: Troubles | None = None
    #: Called in the thread of the drain with what became of each message, before the queue is told.
    on_event: Callable[[Event], object] | None = None


class Quota:
    """How many messages a drain may still start, and when. Not thread-safe."""

    def __init__(self, messages: int, options: DrainOptions) -> None:
        #: Number of messages that may still be reserved.
        self.left = messages if options.limit is None else min(messages, options.limit)
        #: Messages per second; 0: no limit.
        self.rate = conf.MAIL_QUEUE_RATE
        #: When the time limit ends, on monotonic().
        self.until = math.inf if options.time_limit is None else monotonic() + options.time_limit
        self.stop = options.stop
        #: When the next message may start, on monotonic().
        self._next_start = monotonic()

    def is_over(self) -> bool:
        """Return whether no further message may start."""
        return self.stop.asked or max(monotonic(), self._next_start) >= self.until

    def seconds_to_wait(self) -> float:
        """Return the seconds until the next message may start; 0: now."""
        return max(self._next_start - monotonic(), 0) if self.rate else 0

    def begin(self) -> None:
        """Count a message that starts, and postpone the next one according to the rate."""
        if self.rate:
            self._next_start = max(self._next_start, monotonic()) + 1 / self.rate

    def wait(self) -> bool:
        """Sleep until the next message may start; return False if no further message may."""
        return not self.is_over() and not self.stop.wait(self.seconds_to_wait()) and not self.is_over()
