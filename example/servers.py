"""Where the demo's mail goes: a loopback server of its own, or the one that EMAIL_HOST names."""

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
        """The subject; Django < 6.0 folds a long one so that it begins with a blank."""
        return str(self.message["Subject"]).strip()

    @property
    def text(self) -> str:
        """The plain text."""
        body: Any = self.message.get_body(("plain",))
        return str(body.get_content())

    @property
    def parts(self) -> list[str]:
        """The types of its parts, each with its file name or content id."""
        leaves = [part for part in self.message.walk() if not part.is_multipart()]
        return [
            f"{part.get_content_type()} {part.get_filename() or part['Content-ID'] or ''}".strip() for part in leaves
        ]

    def __str__(self) -> str:
        return (
            f"  {self.subject}\n"
            f"    from {self.message['From']}, to {self.message['To'] or 'nobody in a header'}\n"
            f"    SMTP: from {self.sender}, to {', '.join(self.recipients)}\n"
            f"    {', '.join(self.parts)}"
        )


class LoopbackServer:
    """A real SMTP server in this process, which keeps what arrives."""

    def __init__(self) -> None:
        self.received: list[Received] = []
        self._controller: Any = None
        self._port = free_port()
        self.name = f"127.0.0.1:{self._port}"
        for name in ("EMAIL_HOST_USER", "EMAIL_HOST_PASSWORD", "EMAIL_USE_TLS", "EMAIL_USE_SSL"):
            os.environ.pop(name, None)
        os.environ.update(EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(self._port))

    def start(self) -> None:
        """Listen."""
        from aiosmtpd.controller import Controller

        self._controller = Controller(self, hostname="127.0.0.1", port=self._port)
        self._controller.start()

    def stop(self) -> None:
        """Listen no longer."""
        if self._controller:
            self._controller.stop(no_assert=True)
            self._controller = None

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        """Keep a message; aiosmtpd calls this."""
        message: Any = message_from_bytes(envelope.content, policy=policy.default)
        self.received.append(Received(envelope.mail_from, envelope.rcpt_tos, message))
        return "250 stored"


class NamedServer:
    """The server that the environment names; while it is "stopped", the site looks for it where nobody listens."""

    #: What arrives is in the recipient's mailbox, not here.
    received = None

    def __init__(self) -> None:
        self._address = {name: os.environ.get(name, "") for name in ("EMAIL_HOST", "EMAIL_PORT")}
        self.name = ":".join(filter(None, self._address.values()))

    def start(self) -> None:
        """Deliver to it."""
        os.environ.update(self._address)

    def stop(self) -> None:
        """Deliver to nobody."""
        os.environ.update(EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(free_port()))


def free_port() -> int:
    """Find a port at which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
