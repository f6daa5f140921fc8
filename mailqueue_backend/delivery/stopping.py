"""How a drain is asked to end: a request that it heeds between two messages, and the signals that make one."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, current_thread, main_thread
from typing import Any

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Asked once: finish the message in hand. Asked twice: let go of it."""

    def __init__(self) -> None:
        self._asked = Event()
        #: The signal that asked twice; None: nobody did.
        self.forced_by: int | None = None
        #: Called when it is asked twice.
        self.let_go: Callable[[], None] = lambda: None

    def __bool__(self) -> bool:
        return self._asked.is_set()

    def wait(self, seconds: float) -> bool:
        """Sleep, unless it is asked; tell whether it was."""
        return self._asked.wait(seconds)

    def ask(self, number: int = signal.SIGTERM) -> None:
        """Ask, as that signal does."""
        if self:
            self.forced_by = number
            self.let_go()
        self._asked.set()


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
