"""Delivering: what the drain does with connections, failures and other drains."""

from __future__ import annotations

import pickle
import sys
import threading
import time
from datetime import datetime, timedelta
from types import ModuleType
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.db import connection
from django.test import TestCase, override_settings

from mailqueue_backend.delivery.deadlines import Deadline
from mailqueue_backend.delivery.drain import Drain
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import MailTestCase, drain, enqueue, message
from tests.smtp import always, by_recipient


class Unrenderable(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        raise RuntimeError("cannot be rendered")


class ConnectionTests(MailTestCase):
    def test_one_connection_serves_the_drain(self) -> None:
        enqueue(*"abcdefghij")
        drain()
        self.assertEqual((len(self.inbox.received), self.inbox.connections), (10, 1))

    def test_refused_message_does_not_cost_the_connection(self) -> None:
        QueuedEmailBackend().send_messages([message("a"), message("b", to=["bad@example.com"]), message("c")])
        refusing = self.scripted(by_recipient({"bad@example.com": "550 5.1.1 no"}))
        with refusing as smtp, self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            drain()
        self.assertEqual((smtp.subjects, smtp.connections), (["a", "c"], 1))

    def test_connection_that_the_server_closed_is_opened_anew(self) -> None:
        QueuedEmailBackend().send_messages([message("a"), message("b", to=["bad@example.com"]), message("c")])
        refusing = self.scripted(by_recipient({"bad@example.com": "421 going down"}))
        with refusing as smtp, self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            report = drain()
        self.assertEqual((report.sent, report.requeued), (2, 1))
        # One for "a", one for "b" again, one for "c".
        self.assertEqual((smtp.subjects, smtp.connections), (["a", "c"], 3))

    def test_error_in_mid_transaction_does_not_harm_the_next_message(self) -> None:
        # The server has answered MAIL when smtplib finds that it cannot encode the recipient.
        with (
            mock.patch(
                "django.core.mail.backends.smtp.EmailBackend.prep_address", lambda self, address: address, create=True
            ),
            mock.patch(
                "django.core.mail.backends.smtp.sanitize_address", lambda address, encoding: address, create=True
            ),
            self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged,
        ):
            QueuedEmailBackend().send_messages([message("a", to=["ünknown@example.com"]), message("b")])
            drain()
        self.assertIn("UnicodeEncodeError", logged.output[0])
        self.assertEqual(self.inbox.subjects, ["b"])

    def test_connection_is_closed_when_the_drain_ends(self) -> None:
        backend = QueuedEmailBackend()
        backend.send_messages([message()])
        drain(backend)
        self.assertIsNone(backend.connection)
        self.assertIsNone(backend.open())
        self.assertIsNone(backend.connection)

    def test_server_that_is_down_leaves_the_messages_queued(self) -> None:
        self.stop_server()
        enqueue("a", "b")
        with self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            self.assertEqual(QueuedEmailBackend(fail_silently=True).send_queued_messages(), (0, 0, 2))
        self.assertEqual(len(self.queue), 2)

    def test_failed_starttls_never_sends_in_clear_text(self) -> None:
        enqueue("a", "b", "c")
        with self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            drain(QueuedEmailBackend(use_tls=True))
        self.assertEqual(self.inbox.received, [])
        self.assertEqual(len(self.queue), 3)


class FailureTests(MailTestCase):
    def assertOneFails(self, failing: EmailMessage, expected: str) -> None:
        """Only this message fails; its traceback is logged, and it stays queued."""
        QueuedEmailBackend().send_messages([message("a"), failing, message("b")])
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            report = drain()
        self.assertEqual((report.sent, report.requeued, report.length), (2, 1, 3))
        self.assertEqual(self.inbox.subjects, ["a", "b"])
        self.assertIn("Traceback", logged.output[0])
        self.assertIn(expected, logged.output[0])
        self.assertEqual(len(self.queue), 1)

    def test_rendering(self) -> None:
        self.assertOneFails(Unrenderable("x", to=["to@example.com"]), "cannot be rendered")

    def test_no_recipient_left(self) -> None:
        failing = message("x")
        failing.to = []
        self.queue.write(QueuedEmailBackend._wrap(failing))
        with self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            self.assertEqual(drain().requeued, 1)

    def test_hook(self) -> None:
        class Faulty(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                if email_message.subject == "x":
                    email_message_dict.clear()
                    raise KeyError("a bug of the site")
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        enqueue("a", "x", "b")
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            report = drain(Faulty())
        self.assertEqual((report.sent, report.requeued), (2, 1))
        self.assertIn("a bug of the site", logged.output[0])
        self.assertEqual(drain().sent, 1)
        self.assertEqual(self.inbox.subjects, ["a", "b", "x"])

    def test_hook_that_answers_nonsense(self) -> None:
        enqueue("a")
        with (
            mock.patch.object(QueuedEmailBackend, "_send_queued_messages", return_value=None),
            self.assertLogs("mailqueue_backend.delivery", "WARNING"),
        ):
            self.assertEqual(drain().requeued, 1)
        self.assertEqual(len(self.queue), 1)

    def test_hook_that_always_fails_lets_the_message_expire(self) -> None:
        enqueue("a", created=datetime.now() - timedelta(days=2))
        with (
            mock.patch.object(QueuedEmailBackend, "_send_queued_messages", side_effect=KeyError("a bug")),
            self.assertLogs("mailqueue_backend.delivery", "WARNING"),
        ):
            self.assertEqual(drain().discarded, 1)
        self.assertIn("a bug", self.log_lines()[0])

    def test_hook_that_leaves_what_cannot_be_pickled(self) -> None:
        class Faulty(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                email_message_dict["lock"] = threading.Lock()
                return self.DOQUEUE

        enqueue("a")
        with self.assertLogs("mailqueue_backend.delivery", "ERROR") as logged:
            self.assertEqual(drain(Faulty()).requeued, 1)
        self.assertIn("cannot be stored as the hook left it", logged.output[0])
        self.assertEqual(drain().sent, 1)

    def test_unreadable_payload_is_set_aside_with_its_bytes(self) -> None:
        enqueue("a")
        self.queue.write(b"no pickle")
        enqueue("b")
        with self.assertLogs("mailqueue_backend.delivery", "ERROR") as logged:
            report = drain()
        self.assertIn("a payload of 9 bytes, is set aside in MAIL_QUEUE_DEAD", logged.output[0])
        self.assertEqual((report.sent, report.buried, report.length), (2, 1, 3))
        self.assertEqual(open_queue("MAIL_QUEUE_DEAD").read(), b"no pickle")

    def test_interrupted_message_goes_back(self) -> None:
        enqueue("a", "b")
        with (
            mock.patch.object(QueuedEmailBackend, "_send_queued_messages", side_effect=KeyboardInterrupt),
            self.assertRaises(KeyboardInterrupt),
        ):
            drain()
        self.assertEqual(self.queue.counts().due, 2)

    # The deadline is half the lease: no message would be in time.
    @mock.patch.object(Deadline, "start", mock.Mock())
    @override_settings(MAIL_QUEUE_LEASE=0.001)
    def test_lost_lease_is_said(self) -> None:
        class Slow(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                if not getattr(self, "nested", False):
                    self.nested = True
                    time.sleep(0.01)
                    QueuedEmailBackend().send_queued_messages()
                return self.SENT

        enqueue("a")
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            drain(Slow())
        self.assertIn("after its lease", logged.output[0])


class UnknownClassTests(MailTestCase):
    """A message of a class that this process cannot import, as in a rolling deploy."""

    def setUp(self) -> None:
        super().setUp()
        self.module = ModuleType("rolling_deploy")
        self.module.Message = type("Message", (EmailMessage,), {"__module__": "rolling_deploy"})  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, rolling_deploy=self.module):
            new = self.module.Message("new", "Body", "from@example.com", ["to@example.com"])
            QueuedEmailBackend().send_messages([new, message("old")])

    def failing_drain(self) -> Any:
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            report = drain()
        self.lines = logged.output
        return report

    def test_stays_reserved_until_its_lease_ends(self) -> None:
        self.assertEqual((self.failing_drain().requeued, self.queue.counts()[:4]), (1, (0, 0, 0, 1)))
        self.assertRegex(
            self.lines[0], r"Message [0-9a-f]{12} stays reserved until its lease ends: rolling_deploy\.Message"
        )
        self.assertEqual(self.inbox.subjects, ["old"])

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_is_delivered_by_a_process_that_has_the_class(self) -> None:
        self.failing_drain()
        time.sleep(0.3)
        with mock.patch.dict(sys.modules, rolling_deploy=self.module):
            self.assertEqual(drain().sent, 1)
        self.assertEqual(self.inbox.subjects, ["old", "new"])

    @override_settings(MAIL_QUEUE_LEASE=0.2)
    def test_is_set_aside_after_three_hand_outs(self) -> None:
        for _ in range(3):
            self.assertEqual(self.failing_drain().requeued, 1)
            time.sleep(0.3)
        self.assertEqual((self.failing_drain().buried, self.queue.counts().dead), (1, 1))

    def test_is_set_aside_where_the_queue_has_no_leases(self) -> None:
        payload = self.queue.read_many(1)[0]
        with override_settings(QUEUE_BACKEND="dummy"):
            QueuedEmailBackend().que.write(payload)
            self.assertEqual(self.failing_drain().buried, 1)
            self.assertEqual(open_queue("MAIL_QUEUE_DEAD").read(), payload)


class ManyKindsTests(MailTestCase):
    def test_html_attachment_and_non_ascii_arrive(self) -> None:
        original = EmailMultiAlternatives(
            "Grüße", "Täxt", "from@example.com", ["to@example.com"], bcc=["bcc@example.com"]
        )
        original.attach_alternative("<p>Täxt</p>", "text/html")
        original.attach("päper.pdf", b"%PDF\x00\xff", "application/pdf")
        QueuedEmailBackend().send_messages([original])
        drain()
        ((_, recipients, received),) = self.inbox.received
        self.assertEqual(recipients, ["to@example.com", "bcc@example.com"])
        self.assertEqual(received["Subject"], "Grüße")
        self.assertIsNone(received["Bcc"])
        body, html = received.get_body(("plain",)), received.get_body(("html",))
        assert body is not None
        assert html is not None
        self.assertEqual(body.get_content().strip(), "Täxt")
        self.assertEqual(html.get_content().strip(), "<p>Täxt</p>")
        (attachment,) = received.iter_attachments()
        self.assertEqual((attachment.get_filename(), attachment.get_content()), ("päper.pdf", b"%PDF\x00\xff"))


class OtherDrainsTests(MailTestCase):
    def test_drain_that_finds_the_queue_empty_ends_well(self) -> None:
        enqueue("a", "b", "c")
        backend = QueuedEmailBackend()
        other = Drain(backend, {None: backend}, 0)
        counted = backend.que.counts()
        drain()
        with mock.patch.object(type(backend.que), "counts", return_value=counted):
            self.assertEqual(other.run().result, (0, 0, 3))

    def test_hook_may_drain_too(self) -> None:
        class Nested(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                if email_message.subject == "a":
                    self.nested = self.send_queued_messages()
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        enqueue("a", "b", "c")
        backend = Nested()
        self.assertEqual((backend.send_queued_messages().sent, backend.report.sent), (1, 1))
        self.assertEqual((backend.nested.sent, self.inbox.subjects), (2, ["b", "c", "a"]))

    def test_works_in_a_thread_that_is_not_the_main_one(self) -> None:
        results: list[Any] = []

        def work() -> None:
            try:
                results.append(QueuedEmailBackend().send_queued_messages())
            finally:
                connection.close()

        with override_settings(QUEUE_BACKEND="dummy"):
            enqueue("a")
            thread = threading.Thread(target=work)
            thread.start()
            thread.join(30)
        self.assertEqual(results, [(1, 0, 1)])


class AgeTests(TestCase):
    def test_huge_limit_never_expires(self) -> None:
        backend = QueuedEmailBackend()
        self.assertEqual(Drain(backend, {None: backend}, 1e12).expired.timestamp(), 0)


class StrangersPartTests(MailTestCase):
    def write(self, meta: Any) -> None:
        self.queue.write(pickle.dumps({"email": message("strange"), "created": datetime.now(), "mailqueue": meta}))

    def test_nonsense_under_our_key_stops_nothing(self) -> None:
        for nonsense in (
            "a text",
            {"attempts": "many", "using": ["default"], "id": 7},
            {"attempts": None, "using": {}, "created": [], "created_epoch": "late", "id": "x"},
        ):
            with self.subTest(nonsense=nonsense):
                self.write(nonsense)
                enqueue("next")
                with (
                    self.scripted(always("dot", "451 later")),
                    self.assertLogs("mailqueue_backend.delivery", "WARNING"),
                ):
                    self.assertEqual(drain().requeued, 2)
                self.assertEqual(drain().sent, 2)

    def test_recipients_that_cannot_be_read_are_never_taken_for_all(self) -> None:
        for nonsense in (7, "to@example.com", [1, 2], [None], {"to@example.com": 1}):
            with self.subTest(nonsense=nonsense):
                self.write({"remaining": nonsense})
                enqueue("next")
                with self.assertLogs("mailqueue_backend.delivery", "ERROR"):
                    report = drain()
                self.assertEqual((report.sent, report.buried), (1, 1))
        self.assertEqual(set(self.inbox.subjects), {"next"})
