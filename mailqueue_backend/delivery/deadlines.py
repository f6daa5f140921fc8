"""Wall-clock deadlines for what blocks on a socket: when time is up, the socket is shut down under it.

A time-out of the socket does not do: it begins anew with every byte. No lock is taken here: an interrupt at the line
that leaves ``with lock:`` would leave it locked.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from queue import Empty, SimpleQueue
from threading import Thread
from time import monotonic

from .limits import StopRequest


class _Timer:
    """One stretch of time; ``at`` is on the clock of monotonic(), infinity while it does not run."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.fired = False


#: Seconds that a server has to answer the final dot (RFC 5321, section 4.5.3.2.6).
DOT_SECONDS = 600


class Deadline:
    """The time that one session has for one message, and the socket that is shut down when it is over."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._timer = _Timer(math.inf)
        #: Called when the whole message is about to be sent; returns the seconds that the server has to answer.
        self.on_dot: Callable[[], float] = lambda: DOT_SECONDS

    @property
    def fired(self) -> bool:
        """The time is over, and the socket was shut down."""
        return self._timer.fired

    def hold(self, held: socket.socket) -> None:
        """Shut this socket down when time is up, or now if it is; close the one that was held before."""
        self.release()
        self._socket = held
        if self.fired:
            self._shut_down()

    def release(self) -> None:
        """Close the socket that is held."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def start(self, seconds: float) -> None:
        """Begin to count."""
        self._timer = _Timer(monotonic() + seconds)

    def clear(self) -> None:
        """Stop counting."""
        self._timer.at = math.inf

    def extend_for_dot(self) -> None:
        """Leave the server more time to answer, if there is a deadline: the whole message is about to be sent."""
        if self._timer.at < math.inf:
            self.start(self.on_dot())

    @contextmanager
    def shortened(self, seconds: float) -> Iterator[None]:
        """Shut the socket down after so many seconds at most; what comes afterwards has the time that it had."""
        whole = self._timer
        self._timer = _Timer(min(whole.at, monotonic() + seconds))
        try:
            yield
        finally:
            self._timer = whole

    def fire_if_over(self, now: float) -> None:
        """Fire when it is running and its time is over."""
        timer = self._timer
        if timer.at < now:
            timer.at, timer.fired = math.inf, True
            if timer is self._timer:
                self._shut_down()

    def _shut_down(self) -> None:
        with suppress(OSError, AttributeError):  # it is closed, not connected, or released just now
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class Watchdog:
    """One thread that fires the deadlines of a drain's sessions, at most TICK late; all when the stop is forced."""

    TICK = 0.1

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._deadlines: list[Deadline] = []
        self._done: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._watch, name="mailqueue-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. May be called again."""
        self._done.put(None)

    def new_deadline(self) -> Deadline:
        """Return a deadline that is watched."""
        deadline = Deadline()
        self._deadlines.append(deadline)
        return deadline

    def _watch(self) -> None:
        while True:
            with suppress(Empty):
                return self._done.get(timeout=self.TICK)
            now = monotonic() if self._stop.forced_by is None else math.inf
            for deadline in list(self._deadlines):
                deadline.fire_if_over(now)
