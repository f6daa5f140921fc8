"""Actions of a scripted server instead of the usual answer to a step."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Semaphore
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .server import Session

#: Acts on a session and returns the reply that it sent; raises Over to end the session.
Fault: TypeAlias = "Callable[[Session], str]"

#: Seconds that a client may take to reach a step on a slow machine.
TIMEOUT = 60


class Over(Exception):
    """The session ends."""


def say(reply: str) -> Fault:
    """Answer, and hang up after a 421."""

    def fault(session: Session) -> str:
        session.send(reply.encode() + b"\r\n")
        if reply.startswith("421"):
            raise Over
        return reply

    return fault


def fin(session: Session) -> str:
    """Hang up."""
    raise Over


def rst(session: Session) -> str:
    """Reset the connection."""
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.socket.close()
    raise Over


def hang(session: Session) -> str:
    """Never answer again."""
    while session.socket.recv(65536):
        pass
    raise Over


def drip(session: Session) -> str:
    """Send one byte a second, endlessly."""
    session.socket.settimeout(1)
    while True:
        session.send(b"2")
        with suppress(TimeoutError):
            if not session.socket.recv(65536):
                raise Over


def torn(session: Session) -> str:
    """Hang up in the middle of a reply."""
    session.send(b"250 o")
    raise Over


def garbage(session: Session) -> str:
    """Send a line that is not SMTP."""
    session.send(b"\x00\xff\xfe nonsense\r\n")
    return "garbage"


def long_line(session: Session) -> str:
    """Answer with a line that is longer than SMTP allows."""
    session.send(b"250 " + b"x" * 9000 + b"\r\n")
    return "garbage"


def endless(session: Session) -> str:
    """Send a reply that never ends."""
    while True:
        session.send(b"250-and another line\r\n" * 100)


def stored_then(fault: Fault) -> Fault:
    """Store the message, then apply the fault, so that the client does not learn that it was stored."""

    def both(session: Session) -> str:
        session.store()
        return fault(session)

    return both


class Hold:
    """A fault that delays the usual answer until let_go()."""

    def __init__(self) -> None:
        self._let_go = Event()
        self._reached = Semaphore(0)

    def __call__(self, session: Session) -> str:
        self._reached.release()
        while not self._let_go.is_set():
            session.receive(0.01)
        return session.usual(session)

    def wait(self, sessions: int = 1) -> None:
        """Wait until this many sessions, in addition to those already waited for, are held."""
        for _ in range(sessions):
            assert self._reached.acquire(timeout=TIMEOUT), "no client reaches the step"

    def let_go(self) -> None:
        """Answer the held sessions, and every later one without delay."""
        self._let_go.set()
