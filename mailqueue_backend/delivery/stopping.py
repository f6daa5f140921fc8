"""How a drain is asked to end: a request that it heeds between two messages, and the signals that make one."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)
#: Seconds after which a sleeper looks whether it is asked.
SLICE = 0.1


class StopRequest:
    """Asked once: finish the message in hand. Asked twice: let go of it.

    It holds no lock, and neither does whoever looks at it: a signal handler asks, in the midst of anything.
    """

    def __init__(self) -> None:
        self._asked = False
        #: The signal that asked twice; None: nobody did.
        self.forced_by: int | None = None

    def __bool__(self) -> bool:
        return self._asked

    def wait(self, seconds: float) -> bool:
        """Sleep, unless it is asked; tell whether it was."""
        end = time.monotonic() + seconds
        while not self._asked and (left := end - time.monotonic()) > 0:
            time.sleep(min(left, SLICE))
        return self._asked

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask, as that signal does."""
        if self._asked:
            self.forced_by = number
        self._asked = True


@contextmanager
def stopping_on_signals(stop: StopRequest) -> Iterator[None]:
    """Let SIGTERM and SIGINT ask, in the main thread; elsewhere signals are somebody else's. Restores the handlers."""
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
            signal.signal(number, handler)
