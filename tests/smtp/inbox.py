"""aiosmtpd in this process, and what it received."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes, policy
from email.message import EmailMessage
from typing import Any

from django.test import SimpleTestCase, override_settings

from .. import services
from . import Script, ScriptedServer

try:
    from aiosmtpd.controller import Controller
except ImportError:  # the tests that need a server are skipped
    Controller = object


class Inbox:
    """aiosmtpd's handler: accepts and keeps what arrives."""

    def __init__(self) -> None:
        #: (envelope sender, [recipients], parsed message), in order of arrival.
        self.received: list[tuple[str, list[str], EmailMessage]] = []
        #: The same messages, as they came.
        self.contents: list[bytes] = []
        self.connections = 0

    @property
    def messages(self) -> list[EmailMessage]:
        return [message for _, _, message in self.received]

    @property
    def subjects(self) -> list[str]:
        return [str(message["Subject"]) for message in self.messages]

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]) -> Any:
        self.connections += 1
        session.host_name = hostname
        return responses

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        message = message_from_bytes(envelope.content, policy=policy.default)
        self.contents.append(envelope.content)
        self.received.append((envelope.mail_from, envelope.rcpt_tos, message))  # type: ignore[arg-type]
        return "250 stored"


class MailServer(Controller):
    """aiosmtpd's controller on a port that the system chooses."""

    def __init__(self, inbox: Inbox, **kwargs: Any) -> None:
        self._socket = socket.create_server(("127.0.0.1", 0))
        super().__init__(inbox, hostname="127.0.0.1", port=self._socket.getsockname()[1], **kwargs)

    def _create_server(self) -> Any:
        return self.loop.create_server(self._factory_invoker, sock=self._socket, ssl=self.ssl_context)


@services.needs("aiosmtpd", Controller is not object)
class SMTPServerMixin(SimpleTestCase):
    """Starts an SMTP server at EMAIL_HOST for each test, with its ``inbox``."""

    def setUp(self) -> None:
        super().setUp()
        self.inbox = Inbox()
        self.server = MailServer(self.inbox)
        self.server.start()
        self.addCleanup(self.stop_server)
        settings = override_settings(EMAIL_HOST="127.0.0.1", EMAIL_PORT=self.server.port)
        settings.enable()
        self.addCleanup(settings.disable)

    @contextmanager
    def scripted(self, script: Script) -> Iterator[ScriptedServer]:
        """Replace the inbox at EMAIL_HOST by a scripted server."""
        with ScriptedServer(script) as smtp, override_settings(EMAIL_PORT=smtp.port):
            yield smtp

    def stop_server(self) -> None:
        """Nothing listens on EMAIL_PORT from now on."""
        if not self.server.loop.is_closed():
            self.server.stop(no_assert=True)
