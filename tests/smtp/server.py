"""An SMTP server in this process that follows a script: what it answers at which step, and how it fails there."""

from __future__ import annotations

import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from email import message_from_bytes
from email.message import Message
from threading import Thread
from typing import NamedTuple

from .faults import Fault, Over, say
from .scripts import Script, address_in, good


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


class ScriptedServer:
    """Listens on a port that the system chooses, with a thread for each connection. A context manager.

    Servers that are given one list as ``stored`` keep their messages there together.
    """

    def __init__(
        self,
        script: Script = good,
        *,
        stored: list[Stored] | None = None,
        extensions: Iterable[str] = (),
        context: ssl.SSLContext | None = None,
        over_ssl: bool = False,
    ) -> None:
        self.script = script
        self.extensions = list(extensions)
        self.context = context
        self.over_ssl = over_ssl
        self.stored: list[Stored] = [] if stored is None else stored
        #: The verbs that each connection has sent, in lower case where they were sent in the clear.
        self.commands: list[list[str]] = []
        self.open_sessions: set[Session] = set()
        self._threads: list[Thread] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]

    @property
    def connections(self) -> int:
        return len(self.commands)

    @property
    def subjects(self) -> list[str]:
        return [stored.subject for stored in self.stored]

    @property
    def copies(self) -> Counter[str]:
        """How many copies of each subject are stored."""
        return Counter(self.subjects)

    @property
    def deliveries(self) -> Counter[str]:
        """How many messages are stored for each recipient."""
        return Counter(recipient for stored in self.stored for recipient in stored.recipients)

    def said(self, verb: str) -> int:
        """Return how often a command was sent, in the clear or not."""
        return sum(said.upper() == verb for session in self.commands for said in session)

    def __enter__(self) -> ScriptedServer:
        self._start(self._listen)
        return self

    def __exit__(self, *args: object) -> None:
        self.stop_listening()
        for thread in self._threads:
            while thread.is_alive():
                self.cut_off()
                thread.join(0.1)

    def cut_off(self) -> None:
        """Break all connections off."""
        for session in list(self.open_sessions):
            with suppress(OSError):
                socket.socket.shutdown(session.socket, socket.SHUT_RDWR)

    def stop_listening(self) -> None:
        """Refuse connections from now on."""
        _cut(self._listener)
        if self._threads:
            self._threads[0].join()

    def _start(self, target: Callable[[], None]) -> None:
        thread = Thread(target=target, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _listen(self) -> None:
        with suppress(OSError):
            while True:
                connected, _ = self._listener.accept()
                connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.commands.append([])
                session = Session(self, connected, self.commands[-1])
                self.open_sessions.add(session)
                self._start(session.run)


class Session:
    """One connection."""

    def __init__(self, server: ScriptedServer, connected: socket.socket, said: list[str]) -> None:
        self.server = server
        self.socket = connected
        #: What a good server does at this step.
        self.usual: Fault = say("220 ready")
        self._said = said
        self._buffer = bytearray()
        #: None: no transaction.
        self._recipients: list[str] | None = None
        self._content = b""

    def run(self) -> None:
        """Serve until one side hangs up."""
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
            self.server.open_sessions.discard(self)

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def receive(self, seconds: float | None = None) -> None:
        """Read what the client sends, or return after so many seconds. Raises Over when the client has hung up."""
        self.socket.settimeout(seconds)
        with suppress(TimeoutError):
            received = self.socket.recv(65536)
            if not received:
                raise Over
            self._buffer += received
        self.socket.settimeout(None)

    def read_line(self) -> bytes:
        while (end := self._buffer.find(b"\n")) < 0:
            self.receive()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        return line.removesuffix(b"\r")

    def store(self) -> None:
        """Keep the message that was just received, which is all that is to be done with it."""
        self.server.stored.append(Stored(tuple(self._recipients or ()), self._content))
        self.usual = say("250 stored")

    def _step(self, step: str, argument: str, usual: Fault) -> str:
        self.usual = usual
        action = self.server.script(step, argument) or usual
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
            self._recipients.append(address_in(argument))

    def _data(self, argument: str) -> None:
        reply = self._step("DATA", argument, say("354 go on" if self._recipients else "503 no recipient"))
        if reply.startswith("354"):
            early = self._receive_body()
            if early is None:
                usual: Fault = _take if self._recipients else say("554 no recipient")
                self._step("dot", "", usual)
            self._recipients = None

    def _receive_body(self) -> str | None:
        """Read to the final dot; return what was answered in the middle, if anything."""
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
    return session.usual(session)


def _cut(connected: socket.socket) -> None:
    with suppress(OSError):
        socket.socket.shutdown(connected, socket.SHUT_RDWR)
    connected.close()


class FullServer:
    """A port that accepts no connection, since its backlog is full. A context manager."""

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
