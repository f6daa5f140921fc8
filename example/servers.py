"""The SMTP servers of the demo: one that it starts itself, or the one that EMAIL_HOST names."""

from __future__ import annotations

import os
import socket
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any, NamedTuple


class Received(NamedTuple):
    """A message as it arrived."""

    sender: str
    recipients: list[str]
    message: EmailMessage

    @property
    def subject(self) -> str:
        """The subject, without the leading space that Django < 6.0 adds when it folds a long one."""
        return str(self.message["Subject"]).strip()

    @property
    def text(self) -> str:
        """The plain text."""
        body: Any = self.message.get_body(("plain",))
        return str(body.get_content())

    @property
    def parts(self) -> list[str]:
        """The content type of each part, with its file name or Content-ID."""
        leaves = [part for part in self.message.walk() if not part.is_multipart()]
        return [
            f"{part.get_content_type()} {part.get_filename() or part['Content-ID'] or ''}".strip() for part in leaves
        ]

    def __str__(self) -> str:
        return (
            f"  {self.subject}\n"
            f"    from {self.message['From']}, to {self.message['To'] or '(no header)'}\n"
            f"    SMTP: from {self.sender}, to {', '.join(self.recipients)}\n"
            f"    {', '.join(self.parts)}"
        )


class LoopbackServer:
    """A real SMTP server in this process that keeps the messages it receives."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._controller: Any = None
        self._port = free_port()
        self.name = f"127.0.0.1:{self._port}"
        for name in ("EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS", "EMAIL_USE_SSL"):
            os.environ.pop(name, None)
        os.environ.update(EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(self._port))

    def start(self) -> None:
        """Start listening."""
        from aiosmtpd.controller import Controller

        self._controller = Controller(self, hostname="127.0.0.1", port=self._port)
        self._controller.start()

    def stop(self) -> None:
        """Stop listening."""
        if self._controller:
            self._controller.stop(no_assert=True)
            self._controller = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a message. aiosmtpd calls this."""
        message: Any = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append(Received(envelope.mail_from, envelope.rcpt_tos, message))
        return "250 stored"


class NamedServer:
    """The server that the environment names. While it is "stopped", the site uses a port that nothing listens on."""

    #: The messages are in the recipient's mailbox, not here.
    received = None

    def __init__(self) -> None:
        self._address = {name: os.environ.get(name, "") for name in ("EMAIL_HOST", "EMAIL_PORT")}
        self.name = ":".join(filter(None, self._address.values()))

    def start(self) -> None:
        """Point the site to the server."""
        os.environ.update(self._address)

    def stop(self) -> None:
        """Point the site to an unused port."""
        os.environ.update(EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(free_port()))


def free_port() -> int:
    """Return a port that nothing listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
