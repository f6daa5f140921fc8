"""process_mail_queue --ping: a URL is requested after each run that went well."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.test import override_settings

from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.management import ping
from mailqueue_backend.queues.paused import pause
from tests.cases import QueueTestCase, enqueue
from tests.smtp import Script, ScriptedServer, always, good
from tests.smtp.cases import DELIVERY


class Switch(HTTPServer):
    """A dead man's switch on this machine."""

    def __init__(self, status: int = 200) -> None:
        self.status = status
        self.paths: list[str] = []
        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/secret"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Switch)
        self.server.paths.append(self.path)
        self.send_response(self.server.status)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        """Be silent."""


@contextmanager
def switch(status: int = 200) -> Iterator[Switch]:
    with Switch(status) as server:
        thread = threading.Thread(target=server.serve_forever, args=[0.01])
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class PingTestCase(QueueTestCase):
    def run_command(self, *args: str, script: Script = good) -> None:
        self.stdout, self.stderr = StringIO(), StringIO()
        with ScriptedServer(script) as server, override_settings(EMAIL_PORT=server.port):
            call_command("process_mail_queue", *args, stdout=self.stdout, stderr=self.stderr)


class PingTests(PingTestCase):
    def pings(self, *args: str, script: Script = good) -> int:
        """Return how often the URL is requested."""
        with switch() as server:
            self.run_command("--ping", server.url, *args, script=script)
        self.assertEqual({*server.paths} - {"/secret"}, set())
        return len(server.paths)

    def test_after_a_run_that_went_well(self) -> None:
        enqueue("a")
        self.assertEqual(self.pings(), 1)
        self.assertEqual(self.stderr.getvalue(), "")

    def test_after_a_run_without_messages(self) -> None:
        self.assertEqual(self.pings(), 1)

    def test_after_a_refusal_of_one_message(self) -> None:
        enqueue("a")
        with self.assertLogs(DELIVERY, "WARNING"):
            self.assertEqual(self.pings(script=always("dot", "451 later")), 1)

    def test_not_after_what_fail_on_names(self) -> None:
        enqueue("a")
        with switch() as server, self.assertLogs(DELIVERY, "WARNING"), self.assertRaises(CommandError):
            self.run_command("--ping", server.url, "--fail-on", "requeued", script=always("dot", "451 later"))
        self.assertEqual(server.paths, [])

    def test_not_while_the_server_cannot_be_reached(self) -> None:
        enqueue("a")
        with self.assertLogs(DELIVERY, "WARNING"):
            self.assertEqual(self.pings(script=always("banner", "421 4.3.2 closed")), 0)

    def test_not_while_paused(self) -> None:
        pause(self.queue, "")
        self.assertEqual(self.pings(), 0)

    @override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")
    def test_not_where_nothing_is_delivered(self) -> None:
        self.assertEqual(self.pings(), 0)

    def test_not_after_an_error(self) -> None:
        broken = mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=QueueUnavailable("down"))
        with broken, switch() as server, self.assertRaises(CommandError):
            self.run_command("--ping", server.url)
        self.assertEqual(server.paths, [])

    def test_after_each_run_of_a_loop(self) -> None:
        with mock.patch.object(StopRequest, "wait", side_effect=[False, False, True]):
            self.assertEqual(self.pings("--loop"), 3)

    def test_not_after_a_request_to_stop(self) -> None:
        def drain(backend: QueuedEmailBackend) -> tuple[int, int, int]:
            backend.options.stop.ask()
            return 0, 0, 0

        with mock.patch.object(QueuedEmailBackend, "send_queued_messages", drain):
            self.assertEqual(self.pings(), 0)


class FailureTests(PingTestCase):
    def assertReported(self, reason: str, *args: str, url: str) -> None:
        enqueue("a")
        self.run_command("--ping", url, *args)
        self.assertEqual(self.stderr.getvalue(), f"The ping of 127.0.0.1 failed: {reason}\n")
        self.assertTrue(self.stdout.getvalue().startswith("1 message sent"))

    def test_changes_nothing(self) -> None:
        with switch() as server:
            pass
        self.assertReported("connection refused", url=server.url)

    def test_of_a_status(self) -> None:
        with switch(404) as server:
            self.assertReported("HTTP status 404", url=server.url)

    def test_of_a_server_that_never_answers(self) -> None:
        with mock.patch.object(ping, "TIMEOUT", 0.1), Switch() as server:
            self.assertReported("no answer in time", url=server.url)

    def test_of_a_server_that_does_not_speak_http(self) -> None:
        with ScriptedServer() as server:
            enqueue("a")
            self.run_command("--ping", f"http://127.0.0.1:{server.port}/secret")
        self.assertRegex(self.stderr.getvalue(), r"^The ping of 127\.0\.0\.1 failed: BadStatusLine: 220 .*\n$")

    def test_is_reported_once_in_a_loop(self) -> None:
        turns = mock.patch.object(StopRequest, "wait", side_effect=[False, False, True])
        with switch(500) as server, turns:
            self.run_command("--loop", "--ping", server.url)
        self.assertEqual(len(server.paths), 3)
        self.assertEqual(self.stderr.getvalue(), "The ping of 127.0.0.1 failed: HTTP status 500\n")


class URLTests(QueueTestCase):
    def test_wrong_ones_are_refused_and_not_quoted(self) -> None:
        for url in (
            "ftp://a/secret",
            "secret",
            "file:///secret",
            "http:///secret",
            "https://a:b/secret",
            "http://a/x y",
        ):
            with self.subTest(url), self.assertRaisesMessage(CommandError, "it is not a URL such as") as caught:
                call_command("process_mail_queue", "--ping", url)
            self.assertNotIn("secret", str(caught.exception))

    def test_passwords_are_refused(self) -> None:
        with self.assertRaisesMessage(CommandError, "a URL with a user name or password is not supported"):
            call_command("process_mail_queue", "--ping", "https://user:secret@example.org/")
