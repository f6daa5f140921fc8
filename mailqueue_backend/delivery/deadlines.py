"""Wall-clock deadlines for what blocks on a socket: when time is up, the socket is shut down under it.

A time-out of the socket does not do: it begins anew with every byte.
"""

from __future__ import annotations

import math
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType

from .stopping import StopRequest


class Deadline:
    """The time that one worker has for one message, and the socket that is cut when it is over."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        #: On the clock of monotonic(); infinity: not running.
        self._at = math.inf
        #: The socket was cut.
        self.fired = False

    def hold(self, held: socket.socket) -> None:
        """Cut this socket when time is up, or now if it is."""
        with self._lock:
            self._socket = held
            if self.fired:
                self._cut()

    def start(self, seconds: float) -> None:
        """Begin to count."""
        with self._lock:
            self._at, self.fired = monotonic() + seconds, False

    def clear(self) -> None:
        """Stop counting."""
        with self._lock:
            self._at = math.inf

    @contextmanager
    def shortened(self, seconds: float) -> Iterator[None]:
        """Cut the socket after so many seconds at most; what comes afterwards has the time that it had."""
        with self._lock:
            at, fired = self._at, self.fired
            self._at = min(at, monotonic() + seconds)
        try:
            yield
        finally:
            with self._lock:
                self._at, self.fired = at, fired

    def fire_if_over(self, now: float) -> None:
        """Fire when it is running and its time is over."""
        with self._lock:
            if self._at < now:
                self._at, self.fired = math.inf, True
                self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is closed, or not connected
                # SSLSocket.shutdown() would go on in clear text.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Watchdog:
    """One thread that fires the deadlines of a drain's workers, at most TICK late; all when the stop is forced."""

    TICK = 0.1

    def __init__(self, stop: StopRequest) -> None:
        self._stop = stop
        self._deadlines: list[Deadline] = []
        self._done = Event()
        self._thread = Thread(target=self._watch, name="mailqueue-watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def new_deadline(self) -> Deadline:
        """Make a deadline that is watched."""
        deadline = Deadline()
        self._deadlines.append(deadline)
        return deadline

    def _watch(self) -> None:
        while not self._done.wait(self.TICK):
            now = monotonic() if self._stop.forced_by is None else math.inf
            for deadline in list(self._deadlines):
                deadline.fire_if_over(now)
