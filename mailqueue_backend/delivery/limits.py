"""What limits a drain: so many messages, for so long, so fast, and not when it is asked to stop."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import current_thread, main_thread
from time import monotonic
from typing import Any

from ..settings import conf

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds after which a sleeper looks whether it is asked to stop.
SLICE = 0.1


class StopRequest:
    """Asked once: finish the messages that are being sent. Asked twice: let go of them.

    It holds no lock, and neither does whoever looks at it: a signal handler asks, in the midst of anything.
    """

    def __init__(self) -> None:
        self.asked = False
        #: The signal that asked twice; None: nobody did.
        self.forced_by: int | None = None

    def wait(self, seconds: float) -> bool:
        """Sleep, unless it is asked; return whether it was."""
        end = time.monotonic() + seconds
        while not self.asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
        return self.asked

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask, as that signal does."""
        if self.asked:
            self.forced_by = number
        self.asked = True


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Turn SIGTERM and SIGINT into the request, in the main thread; elsewhere signals are somebody else's.

    Restores the handlers.
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
            # None: it was not set by Python, and cannot be restored by it.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


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
    """How many messages a drain may still begin, and when. For one thread."""

    def __init__(self, messages: int, options: DrainOptions) -> None:
        #: Messages that may still be asked for.
        self.left = messages if options.limit is None else min(messages, options.limit)
        self.rate = conf.MAIL_QUEUE_RATE
        #: When no further message may begin, on monotonic().
        self.until = math.inf if options.time_limit is None else monotonic() + options.time_limit
        self.stop = options.stop
        #: When the next message may begin.
        self._turn = monotonic()

    def is_over(self) -> bool:
        """Return whether no further message may begin."""
        return self.stop.asked or max(monotonic(), self._turn) >= self.until

    def seconds_to_wait(self) -> float:
        """Return in how many seconds the next message may begin; 0: now."""
        return max(self._turn - monotonic(), 0) if self.rate else 0

    def begin(self) -> None:
        """Count a message that begins."""
        if self.rate:
            self._turn = max(self._turn, monotonic()) + 1 / self.rate

    def wait(self) -> bool:
        """Sleep until the next message may begin; return False when none may."""
        return not self.is_over() and not self.stop.wait(self.seconds_to_wait()) and not self.is_over()
