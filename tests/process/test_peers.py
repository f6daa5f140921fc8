"""Other backends behind the queue: django-anymail's and Django's own."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.console import EmailBackend as ConsoleBackend
from django.core.mail.backends.dummy import EmailBackend as DummyBackend
from django.core.mail.backends.filebased import EmailBackend as FileBackend
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.test import TestCase, override_settings
from django.utils.translation import gettext_lazy

from mailqueue_backend.mail.base import QueueingMixin
from mailqueue_backend.mail.relay import QueuedEmailBackend
from tests import services
from tests.cases import MailTestCase, message, process_mail_queue

RELAY = "mailqueue_backend.mail.relay.QueuedEmailBackend"
DJANGOS = "django.core.mail.backends"
DELIVERY = "mailqueue_backend.delivery"

needs_anymail = services.needs("django-anymail", services._importable("anymail.backends.base"))
needs_mailers = skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")


def relay_to(backend: str, **kwargs: Any) -> Any:
    return override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=backend, **kwargs)


@needs_anymail
@relay_to("anymail.backends.test.EmailBackend")
class AnymailMessageTests(TestCase):
    """Anymail's additions to a message survive the queue."""

    ADDED = {
        "tags": ["order", "first"],
        "metadata": {"order": 42, "shop": "north"},
        "merge_data": {"to@example.com": {"name": "Grüße"}},
        "merge_global_data": {"shop": "North"},
        "merge_metadata": {"to@example.com": {"n": 1}},
        "template_id": "welcome",
        "track_opens": True,
        "track_clicks": False,
        "envelope_sender": "bounce@example.com",
        "send_at": datetime(2030, 1, 2, 3, 4, tzinfo=timezone.utc),
    }

    ESP_EXTRA = {"asm": {"group": 7, "raw": b"\x00\xff"}}

    def delivered(self, email: Any) -> dict[str, Any]:
        """Queue and drain the message; return the parameters that Anymail would post."""
        self.assertEqual(email.send(), 1)
        self.assertEqual(mail.outbox, [])
        self.assertIn("1 message sent", process_mail_queue())
        (sent,) = mail.outbox
        self.assertIsNot(sent, email)
        params: dict[str, Any] = sent.anymail_test_params
        return params

    def assertAdded(self, params: dict[str, Any]) -> None:
        self.assertEqual({name: params.get(name) for name in self.ADDED}, self.ADDED)
        # Anymail merges esp_extra into the other parameters.
        self.assertEqual(params.get("asm"), {"group": 7, "raw": b"\x00\xff"})

    def test_attributes_of_a_plain_message(self) -> None:
        email = message()
        vars(email).update(self.ADDED, esp_extra=self.ESP_EXTRA)
        self.assertAdded(self.delivered(email))

    def test_attributes_of_anymails_own_class(self) -> None:
        from anymail.message import AnymailMessage

        added = {**self.ADDED, "esp_extra": self.ESP_EXTRA}
        email = AnymailMessage("Hello", "Body", "from@example.com", ["to@example.com"], **added)
        self.assertAdded(self.delivered(email))

    def test_lazy_text_becomes_text(self) -> None:
        email = message()
        email.merge_global_data = {"day": gettext_lazy("Monday")}  # type: ignore[attr-defined]
        self.assertIs(type(self.delivered(email)["merge_global_data"]["day"]), str)

    def test_html_and_attachments_of_all_kinds(self) -> None:
        from anymail.message import AnymailMessage

        email = AnymailMessage("Hello", "Body", "from@example.com", ["to@example.com"])
        identity = email.attach_inline_image(b"\x89PNG", "logo.png", subtype="png")
        email.attach_alternative(f'<img src="cid:{identity}">', "text/html")
        email.attach("a.pdf", b"%PDF", "application/pdf")
        params = self.delivered(email)
        self.assertIn(identity, params["html_body"])
        self.assertEqual([one.content for one in params["attachments"]], [b"\x89PNG", b"%PDF"])
        self.assertEqual([one.inline for one in params["attachments"]], [True, False])

    def test_headers_are_left_to_the_service(self) -> None:
        self.assertNotIn("Message-ID", self.delivered(message()).get("extra_headers", {}))


@needs_anymail
@relay_to("anymail.backends.test.EmailBackend")
class AnymailFailureTests(TestCase):
    """Errors raised by Anymail's test backend."""

    def outcome(self, response: Any = None, **attributes: Any) -> str:
        email = message()
        vars(email).update({"anymail_test_response": response} if response is not None else {}, **attributes)
        email.send()
        with self.assertLogs(DELIVERY, "WARNING"), mock.patch("mailqueue_backend.delivery.policy.log_discard"):
            output = process_mail_queue()
        return "discarded" if " and 1 message discarded" in output else "requeued"

    def test_refused_messages_are_discarded_if_the_site_says_so(self) -> None:
        from anymail.message import AnymailRecipientStatus

        rejected = {"recipient_status": {"to@example.com": AnymailRecipientStatus(None, "rejected")}}
        for retry, expected in ((False, "discarded"), (True, "requeued")):
            with self.subTest(retry=retry), override_settings(MAIL_QUEUE_RETRY_REJECTED=retry):
                self.assertEqual(self.outcome(rejected), expected)

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_message_that_the_service_cannot_send_is_discarded(self) -> None:
        self.assertEqual(self.outcome(from_email="nonsense, more nonsense"), "discarded")

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_error_without_a_response_is_retried(self) -> None:
        from anymail.exceptions import AnymailAPIError

        self.assertEqual(self.outcome(AnymailAPIError("no answer")), "requeued")

    def test_changes_made_during_a_failed_attempt_are_not_kept(self) -> None:
        from anymail.exceptions import AnymailAPIError
        from anymail.signals import pre_send

        def mark(sender: Any, message: Any, **kwargs: Any) -> None:
            message.tags = [*getattr(message, "tags", []), "marked"]
            message.extra_headers["X-Marks"] = message.extra_headers.get("X-Marks", "") + "x"

        pre_send.connect(mark)
        self.addCleanup(pre_send.disconnect, mark)
        self.outcome(AnymailAPIError("no answer"))
        mail.outbox.clear()
        with self.assertLogs(DELIVERY, "WARNING"):
            process_mail_queue()
        self.assertEqual(mail.outbox[0].tags, ["marked"])
        self.assertEqual(mail.outbox[0].extra_headers["X-Marks"], "x")


class Service(BaseHTTPRequestHandler):
    """An HTTP API that accepts mail, or answers with the status that a test sets."""

    #: Status of the next answers.
    status = 200
    posted: list[dict[str, Any]] = []
    connections: set[Any] = set()
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.connections.add(self.client_address)
        if self.status == 200:
            self.posted.append(body)
        answer = json.dumps({"id": "1", "message": "as you like"}).encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *args: Any) -> None:
        pass


@contextmanager
def http_service() -> Iterator[str]:
    """Run the service; yield its URL."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Service)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@needs_anymail
class HTTPServiceTests(TestCase):
    """One of Anymail's backends, over real HTTP."""

    def setUp(self) -> None:
        service = http_service()
        self.url = service.__enter__()
        self.addCleanup(service.__exit__, None, None, None)
        for name, value in (("posted", []), ("connections", set()), ("status", 200)):
            patch = mock.patch.object(Service, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    def site(self, url: str = "") -> Any:
        settings = {"RESEND_API_KEY": "key", "RESEND_API_URL": url or self.url}
        return relay_to("anymail.backends.resend.EmailBackend", ANYMAIL=settings)

    def test_one_session_serves_all_messages(self) -> None:
        with self.site():
            for subject in ("a", "b", "c"):
                message(subject).send()
            self.assertEqual(Service.posted, [])
            self.assertIn("3 messages sent", process_mail_queue())
        self.assertEqual([body["subject"] for body in Service.posted], ["a", "b", "c"])
        self.assertEqual(len(Service.connections), 1)

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_status_of_the_response_decides(self) -> None:
        for status, discarded in (
            (400, 1),
            (413, 1),
            (422, 1),
            # Errors of the key, the account, the URL, the load or the service, not of the message.
            (401, 0),
            (403, 0),
            (404, 0),
            (429, 0),
            (500, 0),
            (503, 0),
        ):
            with self.subTest(status=status), self.site(), mock.patch.object(Service, "status", status):
                message().send()
                with (
                    self.assertLogs(DELIVERY, "WARNING"),
                    mock.patch("mailqueue_backend.delivery.policy.log_discard") as log,
                ):
                    process_mail_queue()
                self.assertEqual(log.call_count, discarded)
                QueuedEmailBackend().que.read_many(9)

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_service_that_is_down_keeps_the_message(self) -> None:
        with self.site("http://127.0.0.1:1/"):
            message().send()
            with self.assertLogs(DELIVERY, "WARNING"):
                process_mail_queue()
        with self.site():
            self.assertIn("1 message sent", process_mail_queue())

    @needs_mailers
    def test_options_of_a_mailer_reach_its_backend(self) -> None:
        options = {"api_key": "key", "api_url": self.url}
        with override_settings(
            MAILERS={
                "default": {"BACKEND": RELAY, "OPTIONS": {"deliver_using": "resend"}},
                "resend": {"BACKEND": "anymail.backends.resend.EmailBackend", "OPTIONS": options},
            }
        ):
            message("a").send()
            self.assertIn("1 message sent", process_mail_queue())
        self.assertEqual(len(Service.posted), 1)


class QueuedConsoleBackend(QueueingMixin, ConsoleBackend):  # type: ignore[misc]
    pass


class QueuedDummyBackend(QueueingMixin, DummyBackend):  # type: ignore[misc]
    pass


class QueuedFileBackend(QueueingMixin, FileBackend):  # type: ignore[misc]
    pass


class QueuedLocmemBackend(QueueingMixin, LocmemBackend):  # type: ignore[misc]
    pass


class DjangosOwnTests(MailTestCase):
    """Each of Django's backends, behind the relay and with the mixin."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)

    def sites(self, name: str) -> Iterator[tuple[str, Any]]:
        """Yield each way of configuring this backend, with its name."""
        files = {"EMAIL_FILE_PATH": str(self.directory)} if name == "filebased" else {}
        path = f"{DJANGOS}.{name}.EmailBackend"
        mixin = {"console": "Console", "dummy": "Dummy", "filebased": "File", "locmem": "Locmem"}[name]
        own = f"tests.process.test_peers.Queued{mixin}Backend"
        yield "relay", relay_to(path, **files)
        yield "mixin", override_settings(EMAIL_BACKEND=own, **files)
        if hasattr(mail, "mailers"):
            options = {"file_path": str(self.directory)} if files else {}
            relay = {"BACKEND": RELAY, "OPTIONS": {"deliver_using": "target"}}
            target = {"BACKEND": path, "OPTIONS": options}
            yield "relay of MAILERS", override_settings(MAILERS={"default": relay, "target": target})
            yield "mixin in MAILERS", override_settings(MAILERS={"default": {"BACKEND": own, "OPTIONS": options}})

    def deliver(self, name: str) -> Iterator[None]:
        """For each way of configuring this backend, queue two messages and drain, then yield."""
        for what, site in self.sites(name):
            with self.subTest(what), site:
                for subject in ("Grüße", "b"):
                    email = EmailMultiAlternatives(subject, "Body", "from@example.com", ["to@example.com"])
                    email.attach_alternative("<p>Body</p>", "text/html")
                    email.send()
                self.assertEqual(len(self.queue), 2)
                self.assertIn("2 messages sent and 0 messages discarded out of 2", process_mail_queue())
                yield

    def test_filebased(self) -> None:
        for _ in self.deliver("filebased"):
            text = "".join(path.read_text() for path in self.directory.iterdir())
            self.assertEqual((text.count("Subject: "), text.count("<p>Body</p>")), (2, 2))
            for path in self.directory.iterdir():
                path.unlink()

    def test_console(self) -> None:
        with mock.patch("sys.stdout", StringIO()) as stdout:
            for _ in self.deliver("console"):
                self.assertEqual(stdout.getvalue().count("Subject: "), 2)
                stdout.truncate(0)

    def test_locmem(self) -> None:
        for _ in self.deliver("locmem"):
            self.assertEqual([sent.subject for sent in mail.outbox], ["Grüße", "b"])
            mail.outbox.clear()

    def test_dummy(self) -> None:
        for _ in self.deliver("dummy"):
            self.assertEqual(mail.outbox, [])

    def test_fail_silently_as_djangos_log_handler_passes_it(self) -> None:
        for name in ("filebased", "console", "locmem"):
            for what, site in self.sites(name):
                if "MAILERS" not in what:
                    with self.subTest(name, what=what), site:
                        self.assertTrue(self.silent_connection().fail_silently)

    def silent_connection(self) -> Any:
        """Return the connection that AdminEmailHandler opens; from within Django, get_connection() does not warn."""
        from django.utils.log import AdminEmailHandler

        with mock.patch("django.core.mail.mail_admins") as mail_admins:
            AdminEmailHandler().send_mail("Subject", "Body")
        return mail_admins.call_args.kwargs["connection"]
