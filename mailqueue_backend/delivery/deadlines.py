"""Deadlines for blocking socket calls: when a deadline passes, a watchdog thread shuts down the socket.

A socket timeout is not enough, since it starts again with every byte. This module uses no locks: an interrupt on the
way out of ``with lock:`` could leave the lock held.
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
    """The end of a period: ``at``, on monotonic(); infinity if the timer is not running."""

    def __init__(self, at: float) -> None:
        self.at = at
        self.fired = False


#: Seconds that a server has to reply to the final dot (RFC 5321, section 4.5.3.2.6).
DOT_SECONDS = 600


class Deadline:
    """The deadline of one session for one message, and the socket that is shut down when it passes."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._timer = _Timer(math.inf)
        #: Called before the final dot is sent; returns the seconds that the server has to reply.
        self.on_dot: Callable[[], float] = lambda: DOT_SECONDS

    @property
    def fired(self) -> bool:
        """The deadline has passed, and the socket was shut down."""
        return self._timer.fired

    def hold(self, held: socket.socket) -> None:
        """Shut this socket down when the deadline passes, or now if it has; close the socket held before."""
        self.release()
        self._socket = held
        if self.fired:
            self._shut_down()

    def release(self) -> None:
        """Close the held socket, if any."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def start(self, seconds: float) -> None:
        """Set the deadline to ``seconds`` from now."""
        self._timer = _Timer(monotonic() + seconds)

    def clear(self) -> None:
        """Remove the deadline."""
        self._timer.at = math.inf

    def extend_for_dot(self) -> None:
        """Move a running deadline to allow for the reply to the final dot, which is about to be sent."""
        if self._timer.at < math.inf:
            self.start(self.on_dot())

    @contextmanager
    def shortened(self, seconds: float) -> Iterator[None]:
        """Limit the block to ``seconds``, or less if the deadline is earlier; restore the deadline after it."""
        outer = self._timer
        self._timer = _Timer(min(outer.at, monotonic() + seconds))
        try:
            yield
        finally:
            self._timer = outer

    def fire_if_over(self, now: float) -> None:
        """Shut the socket down if the deadline is before ``now``."""
        timer = self._timer
        if timer.at < now:
            timer.at, timer.fired = math.inf, True
            if timer is self._timer:
                self._shut_down()

    def _shut_down(self) -> None:
        with suppress(OSError, AttributeError):  # the socket is closed, not connected, or has just been released
            self._socket.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]


class Watchdog:
    """A thread that fires the deadlines of a drain's sessions, and all of them when the stop is forced."""

    #: Seconds between two checks of the deadlines.
    TICK = 0.1

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._deadlines: list[Deadline] = []
        self._done: SimpleQueue[None] = SimpleQueue()
        self._thread = Thread(target=self._watch, name="mailqueue-watchdog", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Stop the thread, without waiting for it. May be called again."""
        self._done.put(None)

    def new_deadline(self) -> Deadline:
        """Return a new deadline, and watch it from now on."""
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
