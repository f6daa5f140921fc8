"""Wall-clock deadlines for what blocks on a socket: when time is up, the socket is shut down under it.

A time-out of the socket does not do: it begins anew with every byte.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from threading import Event, Lock, Thread
from time import monotonic
from types import TracebackType


class Deadline:
    """The time that one worker has for one message, and the socket that is cut when it is over."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._socket: socket.socket | None = None
        #: On the clock of monotonic(); None: not running.
        self._at: float | None = None
        #: The socket was cut: what it still yields is no answer.
        self.fired = False

    def hold(self, held: socket.socket | None) -> None:
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
            self._at = None

    def fire_if_over(self, now: float) -> None:
        """Fire when it is running and its time is over."""
        with self._lock:
            if self._at is not None and self._at <= now:
                self._fire()

    def fire(self) -> None:
        """Time is up, running or not."""
        with self._lock:
            self._fire()

    def _fire(self) -> None:
        self._at, self.fired = None, True
        self._cut()

    def _cut(self) -> None:
        if self._socket is not None:
            with suppress(OSError):  # it is closed, or not connected
                # SSLSocket.shutdown() would go on in clear text.
                socket.socket.shutdown(self._socket, socket.SHUT_RDWR)


class Watchdog:
    """One thread that fires the deadlines of a drain's workers, at most TICK late."""

    TICK = 0.1

    def __init__(self) -> None:
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

    def fire_all(self) -> None:
        """Time is up for everybody, whatever the clock says."""
        for deadline in list(self._deadlines):
            deadline.fire()

    def _watch(self) -> None:
        while not self._done.wait(self.TICK):
            now = monotonic()
            for deadline in list(self._deadlines):
                deadline.fire_if_over(now)
