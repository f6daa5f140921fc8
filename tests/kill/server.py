"""A mail server that keeps what it accepts, and with which a test sees and decides what is said when.

Each process gets a port of its own, so that the server knows whom it serves. What it accepts it keeps before it
says so, as a mail server must.
"""

from __future__ import annotations

import asyncio
import re
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

#: The steps of a session, in order; each is answered.
STEPS = ("banner", "EHLO", "MAIL", "RCPT", "DATA", "dot", "QUIT")
_REPLIES = {"banner": "220 here", "DATA": "354 go on", "dot": "250 stored", "QUIT": "221 bye"}
#: Seconds in which a process comes to a step, on a slow machine.
TIMEOUT = 60
_END = b"\r\n.\r\n"


class MailServer:
    """Listens on several ports, in a thread of its own."""

    def __init__(self) -> None:
        #: The messages that were accepted, in order.
        self.accepted: list[bytes] = []
        self._ports: list[Port] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def listen(self, **options: Any) -> Port:
        """Open a port; the options are those of Port."""
        port = Port(self._loop, self.accepted, **options)
        self._ports.append(port)
        asyncio.run_coroutine_threadsafe(port.open(), self._loop).result()
        return port

    def close(self) -> None:
        """Stop; who is connected is cut off."""
        for port in self._ports:
            self._loop.call_soon_threadsafe(port.close)
        self._loop.call_soon_threadsafe(self._loop.call_soon, self._loop.stop)
        self._thread.join()
        self._loop.close()


class Port:
    """One port, and who is connected there."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        accepted: list[bytes],
        *,
        heard: Callable[[str], None] = lambda step: None,
        pipelining: Callable[[], bool] = lambda: True,
        delay: float = 0,
        hold: str = "",
        replies: dict[str, str] | None = None,
    ) -> None:
        self._loop = loop
        self.accepted = accepted
        #: Called with each step that has come, before it is answered; in the server's thread.
        self.heard = heard
        #: Called at each EHLO.
        self.pipelining = pipelining
        #: Seconds before each reply.
        self.delay = delay
        #: The step that is not answered before let_go().
        self.hold = hold
        #: Replies that differ from those of a good server, by step.
        self.replies = {**_REPLIES, **(replies or {})}
        self._held: list[Callable[[], None]] = []
        self.connections: set[Connection] = set()

    async def open(self) -> None:
        """Begin to listen."""
        listener = socket.create_server(("127.0.0.1", 0))
        self.number: int = listener.getsockname()[1]
        self._server = await self._loop.create_server(lambda: Connection(self), sock=listener)

    def close(self) -> None:
        """Listen no more, and cut off who is connected."""
        self._server.close()
        for connection in self.connections:
            connection.cut()

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call something in the server's thread; from that thread."""
        self._loop.call_later(seconds, call)

    def answer(self, step: str, call: Callable[[], None]) -> None:
        """Make an answer, when it is time."""
        if step != self.hold:
            self.later(self.delay, call)
        else:
            self._held.append(call)

    def wait(self, answers: int = 1) -> Port:
        """Wait until so many answers are held back."""
        end = time.monotonic() + TIMEOUT
        while len(self._held) < answers:
            assert time.monotonic() < end, f"nobody comes to {self.hold}"
            time.sleep(0.01)
        return self

    def let_go(self) -> None:
        """Answer what was not, and everything from now on."""
        self.hold = ""
        for call in self._held:
            self._loop.call_soon_threadsafe(call)


class Connection(asyncio.Protocol):
    """One SMTP session."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self._buffer = b""
        self._in_data = False
        self._recipients = 0

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self._port.connections.add(self)
        self._step("banner")

    def connection_lost(self, error: Exception | None) -> None:
        self._port.connections.discard(self)

    def cut(self) -> None:
        """Break the connection off."""
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (taken := self._take()) is not None:
            if self._in_data:
                self._port.accepted.append(taken)
            self._step("dot" if self._in_data else taken[:4].decode().upper())

    def _take(self) -> bytes | None:
        """Cut a command, or a message, off the buffer."""
        taken, found, rest = self._buffer.partition(_END if self._in_data else b"\r\n")
        if not found:
            return None
        self._buffer = rest
        return taken

    def _step(self, step: str) -> None:
        self._port.heard(step)
        reply = self._port.replies.get(step, "250 fine")
        if step == "RCPT":
            self._recipients += reply.startswith("2")
        elif step == "DATA" and not self._recipients:
            reply = "503 nobody wants it"
        self._in_data = step == "DATA" and reply.startswith("3")
        if step in ("dot", "RSET"):
            self._recipients = 0
        if step == "EHLO" and self._port.pipelining():
            reply = "250-fine\r\n250 PIPELINING"
        self._port.answer(step, lambda: self._transport.write(f"{reply}\r\n".encode()))
        if step == "QUIT":
            self._port.answer(step, self._transport.close)


def header(message: bytes, name: str) -> str:
    """Give a header that stands on one line; "" when it is not there."""
    found = re.search(rb"^%b: (.*?)\r$" % name.encode(), message.partition(b"\r\n\r\n")[0] + b"\r", re.M | re.I)
    return found[1].decode() if found else ""
