"""What a scripted server does at a step instead of answering as it should."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable
from contextlib import suppress
from threading import Event, Semaphore
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from .server import Session

#: Acts on a session and returns the reply that it sent; the session goes on unless it raises Over.
Fault: TypeAlias = "Callable[[Session], str]"

#: Seconds in which a client reaches a step, on a slow machine.
TIMEOUT = 60


class Over(Exception):
    """The session ends."""


def say(reply: str) -> Fault:
    """Answer; after a 421 hang up."""

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
    """Send one byte a second, for ever."""
    session.socket.settimeout(1)
    while True:
        session.send(b"2")
        with suppress(TimeoutError):
            if not session.socket.recv(65536):
                raise Over


def torn(session: Session) -> str:
    """Hang up in the middle of a good answer."""
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
    """Answer with one line after another."""
    while True:
        session.send(b"250-and another line\r\n" * 100)


def stored_then(fault: Fault) -> Fault:
    """Store the message before the fault, so that the client cannot know of it."""

    def both(session: Session) -> str:
        session.store()
        return fault(session)

    return both


class Hold:
    """A fault that answers as usual, but only after let_go()."""

    def __init__(self) -> None:
        self._let_go = Event()
        self._reached = Semaphore(0)

    def __call__(self, session: Session) -> str:
        self._reached.release()
        while not self._let_go.is_set():
            session.receive(0.01)
        return session.usual(session)

    def wait(self, sessions: int = 1) -> None:
        """Wait until so many sessions, in addition to those waited for before, are held."""
        for _ in range(sessions):
            assert self._reached.acquire(timeout=TIMEOUT), "no client reaches the step"

    def let_go(self) -> None:
        """Answer the sessions that are held, and all others from now on."""
        self._let_go.set()
