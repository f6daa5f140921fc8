"""The demo in example/, run with its own mail server and with one that the environment names."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import Any

from django.test import SimpleTestCase, tag

from tests import TOP, services
from tests.smtp.inbox import Controller, Inbox, MailServer

DEMO = TOP / "example" / "demo.py"


def run_demo(**environment: str) -> subprocess.CompletedProcess[str]:
    """Run the demo with the warning filters of this process; only ``environment`` may configure its mail server."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("EMAIL_", "DEMO_"))}
    filters = [f"-W{option}" for option in sys.warnoptions]
    return subprocess.run(
        [sys.executable, *filters, str(DEMO)],
        env={**inherited, "PYTHONPATH": str(TOP), "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )


class AuthenticatedInbox(Inbox):
    """Accept mail only from clients that have logged in."""

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, options: list[str]) -> str:
        envelope.mail_from = address
        return "250 OK" if session.authenticated else "530 Log in first"


def authenticate_demo(server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
    """Check the demo's user name and password; an authenticator for aiosmtpd."""
    from aiosmtpd.smtp import AuthResult

    return AuthResult(success=(data.login, data.password) == (b"demo", b"secret"), handled=False)


@tag("slow")
@services.needs("aiosmtpd", Controller is not object)
class DemoTests(SimpleTestCase):
    def test_shows_what_arrives_what_is_requeued_and_what_is_discarded(self) -> None:
        result = run_demo()

        self.assertEqual((result.returncode, result.stderr), (0, ""))
        for line in (
            "The page says: 6 messages in the queue.",
            "stdout: 6 messages sent and 0 messages discarded out of 6 messages.",
            "    text/plain, text/html, image/png <logo>",
            "stdout: 0 messages sent and 0 messages discarded out of 1 message.",
            "stdout: 0 messages sent and 1 message discarded out of 1 message.",
        ):
            with self.subTest(line):
                self.assertIn(line + "\n", result.stdout)
        self.assertRegex(
            result.stdout, r"discards\.log: .* - smtp\.mail_queue - WARNING - Message Expired\. .*Given up"
        )

    def test_delivers_to_the_server_that_the_environment_names(self) -> None:
        inbox = AuthenticatedInbox()
        server = MailServer(inbox, authenticator=authenticate_demo, auth_require_tls=False)
        server.start()
        self.addCleanup(server.stop, no_assert=True)

        result = run_demo(
            EMAIL_HOST="127.0.0.1",
            EMAIL_PORT=str(server.port),
            EMAIL_HOST_USER="demo",
            EMAIL_HOST_PASSWORD="secret",
            DEFAULT_FROM_EMAIL="site@example.org",
            DEMO_TO="reader@example.org",
        )

        self.assertEqual((result.returncode, result.stderr), (0, ""))
        self.assertEqual(len(inbox.received), 7)
        self.assertEqual(
            {(sender, *to) for sender, to, _ in inbox.received}, {("site@example.org", "reader@example.org")}
        )

    def test_fails_when_the_named_server_does_not_answer(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as closed:
            port = closed.getsockname()[1]

        result = run_demo(EMAIL_HOST="127.0.0.1", EMAIL_PORT=str(port), DEMO_TO="reader@example.org")

        self.assertEqual(result.returncode, 1)
        self.assertIn("the summary is: 6 messages sent", result.stderr)

    def test_asks_for_a_recipient_when_a_server_is_named(self) -> None:
        result = run_demo(EMAIL_HOST="127.0.0.1")

        self.assertEqual(result.returncode, 1)
        self.assertIn("DEMO_TO", result.stderr)
