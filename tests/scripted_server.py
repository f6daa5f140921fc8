"""An SMTP server in this process that follows a script: what it answers at which step, and how it fails there.

The steps are banner, EHLO, HELO, STARTTLS, TLS, AUTH, MAIL, RCPT, DATA, body (its first line), dot, RSET and QUIT.
A script is called at each step and gives the answer ("450 later"), a fault (a function below), or None for what a
good server does.
"""

from __future__ import annotations

import socket
import ssl
import struct
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from threading import Lock, Thread
from typing import Any, NamedTuple, TypeAlias

#: Does something to a session; a session that it does not end goes on after the reply that it returns.
Fault: TypeAlias = "Callable[[Session], str]"
#: (step, argument of the command) -> what is to happen.
Script: TypeAlias = "Callable[[str, str], str | Fault | None]"


class Over(Exception):
    """The session ends."""


class Stored(NamedTuple):
    """A message that the server has."""

    recipients: tuple[str, ...]
    content: bytes

    @property
    def message(self) -> Message:
        return message_from_bytes(self.content)

    @property
    def subject(self) -> str:
        return str(self.message["Subject"])


def in_turn(**steps: Iterable[str | Fault | None]) -> Script:
    """Script the first times that each step is reached, and nothing after them."""
    turns, lock = {step: iter(actions) for step, actions in steps.items()}, Lock()

    def script(step: str, argument: str) -> str | Fault | None:
        with lock:
            return next(turns.get(step, iter(())), None)

    return script


def by_recipient(replies: dict[str, str]) -> Script:
    """Script the answers to RCPT by address."""
    return lambda step, argument: replies.get(_address(argument)) if step == "RCPT" else None


def always(step: str, action: str | Fault) -> Script:
    """Script one step, whenever it is reached."""
    return lambda reached, argument: action if reached == step else None


class ScriptedServer:
    """Listens on a port that the system chooses, a thread for each connection. A context manager."""

    def __init__(
        self,
        script: Script = lambda step, argument: None,
        *,
        extensions: Iterable[str] = (),
        context: ssl.SSLContext | None = None,
        over_ssl: bool = False,
    ) -> None:
        self.script = script
        self.extensions = list(extensions)
        self.context = context
        self.over_ssl = over_ssl
        self.stored: list[Stored] = []
        #: What each connection has said: verbs, in lower case those that were sent in the clear.
        self.commands: list[list[str]] = []
        self._sockets: list[socket.socket] = []
        self._threads: list[Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self.commands)

    @property
    def copies(self) -> Counter[str]:
        """How often each subject has come."""
        return Counter(stored.subject for stored in self.stored)

    @property
    def deliveries(self) -> Counter[str]:
        """How many copies each recipient has."""
        return Counter(recipient for stored in self.stored for recipient in stored.recipients)

    def said(self, verb: str) -> int:
        """Count a command, in the clear or not."""
        return sum(said.upper() == verb for session in self.commands for said in session)

    def __enter__(self) -> ScriptedServer:
        self._start(self._listen)
        return self

    def __exit__(self, *args: object) -> None:
        self.stop_listening()
        for connected in list(self._sockets):
            _cut(connected)
        for thread in list(self._threads):
            thread.join()

    def stop_listening(self) -> None:
        """Refuse connections from now on."""
        _cut(self._listener)

    def _start(self, target: Callable[..., None], *args: Any) -> None:
        thread = Thread(target=target, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._sockets.append(connected)
                self.commands.append([])
                self._start(Session(self, connected, self.commands[-1]).run)


class Session:
    """One connection."""

    def __init__(self, server: ScriptedServer, connected: socket.socket, said: list[str]) -> None:
        self.server = server
        self.socket = connected
        self._said = said
        self._buffer = bytearray()
        #: None: no transaction.
        self._recipients: list[str] | None = None
        self._content = b""

    def run(self) -> None:
        """Serve until somebody hangs up."""
        try:
            if self.server.over_ssl:
                self._step("TLS", "", self._shake_hands)
            self._step("banner", "", say("220 ready"))
            while True:
                self._obey(self.read_line().decode("latin-1"))
        except (OSError, Over):
            pass
        finally:
            _cut(self.socket)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_line(self) -> bytes:
        while b"\n" not in self._buffer:
            received = self.socket.recv(65536)
            if not received:
                raise Over
            self._buffer += received
        line, _, self._buffer[:] = bytes(self._buffer).partition(b"\n")
        return line.removesuffix(b"\r")

    def store(self) -> None:
        """Keep the message that was just received."""
        self.server.stored.append(Stored(tuple(self._recipients or ()), self._content))

    def _step(self, step: str, argument: str, usual: Fault) -> str:
        action = self.server.script(step, argument)
        if action is None:
            return usual(self)
        return say(action)(self) if isinstance(action, str) else action(self)

    def _obey(self, line: str) -> None:
        verb, _, argument = line.partition(" ")
        secure = isinstance(self.socket, ssl.SSLSocket)
        self._said.append(verb.upper() if secure else verb.lower())
        getattr(self, f"_{verb.lower()}", self._unknown)(argument)

    def _unknown(self, argument: str) -> None:
        say("500 what?")(self)

    def _ehlo(self, argument: str) -> None:
        extensions = [*self.server.extensions, "SIZE"]
        if self.server.context and not isinstance(self.socket, ssl.SSLSocket):
            extensions.append("STARTTLS")
        lines = ["250-here", *(f"250-{extension}" for extension in extensions), "250 HELP"]
        self._step("EHLO", argument, say("\r\n".join(lines)))

    def _helo(self, argument: str) -> None:
        self._step("HELO", argument, say("250 here"))

    def _starttls(self, argument: str) -> None:
        if self._step("STARTTLS", argument, say("220 go")).startswith("220"):
            self._step("TLS", "", self._shake_hands)

    def _shake_hands(self, session: Session) -> str:
        assert self.server.context is not None
        self.socket = wrapped = self.server.context.wrap_socket(
            self.socket, server_side=True, do_handshake_on_connect=False
        )
        self.server._sockets.append(wrapped)
        wrapped.do_handshake()
        self._buffer.clear()
        return ""

    def _auth(self, argument: str) -> None:
        self._step("AUTH", argument, say("235 welcome"))

    def _mail(self, argument: str) -> None:
        usual = "250 ok" if self._recipients is None else "503 nested MAIL"
        if self._step("MAIL", argument, say(usual)).startswith("250"):
            self._recipients = []

    def _rcpt(self, argument: str) -> None:
        usual = "503 no MAIL" if self._recipients is None else "250 ok"
        reply = self._step("RCPT", argument, say(usual))
        if reply.startswith("25") and self._recipients is not None:
            self._recipients.append(_address(argument))

    def _data(self, argument: str) -> None:
        reply = self._step("DATA", argument, say("354 go on" if self._recipients else "503 no recipient"))
        if reply.startswith("354"):
            early = self._receive_body()
            if early is None:
                usual: Fault = _take if self._recipients else say("554 no recipient")
                self._step("dot", "", usual)
            self._recipients = None

    def _receive_body(self) -> str | None:
        """Read to the final dot; give what was answered in the middle, if anything."""
        lines: list[bytes] = []
        early: str | None = None
        while (line := self.read_line()) != b".":
            lines.append(line.removeprefix(b".") if line.startswith(b"..") else line)
            if len(lines) == 1:
                early = self._step("body", "", lambda session: "") or None
        self._content = b"\r\n".join([*lines, b""])
        return early

    def _rset(self, argument: str) -> None:
        if self._step("RSET", argument, say("250 ok")).startswith("250"):
            self._recipients = None

    def _quit(self, argument: str) -> None:
        self._step("QUIT", argument, say("221 bye"))
        raise Over


def _take(session: Session) -> str:
    session.store()
    return say("250 stored")(session)


def _address(argument: str) -> str:
    return argument.partition("<")[2].partition(">")[0]


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    connected.close()


# faults


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
    """Break off."""
    session.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.socket.close()
    raise Over


def hang(session: Session) -> str:
    """Say nothing any more."""
    while session.socket.recv(65536):
        pass
    raise Over


def drip(session: Session) -> str:
    """Say a byte a second, for ever."""
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
    """Speak no SMTP."""
    session.send(b"\x00\xff\xfe nonsense\r\n")
    return "garbage"


def long_line(session: Session) -> str:
    """Answer with a line that is longer than any may be."""
    session.send(b"250 " + b"x" * 9000 + b"\r\n")
    return "garbage"


def endless(session: Session) -> str:
    """Answer line upon line."""
    while True:
        session.send(b"250-and another line\r\n" * 100)


def stored_then(fault: Fault) -> Fault:
    """Take the message, and then fail: the client cannot know."""

    def both(session: Session) -> str:
        session.store()
        return fault(session)

    return both


class FullServer:
    """A port that answers no connection: its queue of them is full. A context manager."""

    def __enter__(self) -> FullServer:
        self._sockets = [socket.create_server(("127.0.0.1", 0), backlog=0)]
        self.port: int = self._sockets[0].getsockname()[1]
        for _ in range(3):
            waiting = socket.socket()
            waiting.setblocking(False)
            waiting.connect_ex(("127.0.0.1", self.port))
            self._sockets.append(waiting)
        return self

    def __exit__(self, *args: object) -> None:
        for held in self._sockets:
            held.close()
