"""The relay: it queues, and any other backend delivers."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.core.management import CommandError
from django.test import TestCase, TransactionTestCase, override_settings

from mailqueue_backend.checks import check_mailers, check_relay
from mailqueue_backend.envelope import META_KEY, loads
from mailqueue_backend.errors import ConfigurationError
from mailqueue_backend.mail.base import QueueingMixin
from mailqueue_backend.mail.relay import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import BACKEND, MailTestCase, message, process_mail_queue

RELAY = "mailqueue_backend.mail.relay.QueuedEmailBackend"
SMTP = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
DELIVERY = "mailqueue_backend.delivery"
HERE = "tests.wire.test_relay"

needs_mailers = skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")


class RecordingBackend(BaseEmailBackend):
    """Delivers nowhere, and notes what is done to it."""

    calls: list[Any] = []
    #: Subjects that fail.
    failing: set[str] = set()
    reachable = True

    def __init__(self, fail_silently: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.fail_silently = fail_silently
        self.connected = False

    def open(self) -> bool:
        if self.connected:
            return False
        self.calls.append("open")
        if not self.reachable:
            raise ConnectionRefusedError("nobody is there")
        self.connected = True
        return True

    def close(self) -> None:
        if self.connected:
            self.calls.append("close")
            self.connected = False

    def send_messages(self, email_messages: Any) -> int:
        made_here = self.open()
        try:
            for email in email_messages:
                self.calls.append(email.subject)
                if email.subject in self.failing:
                    if self.fail_silently:
                        return 0
                    raise ConnectionResetError("it hung up")
        finally:
            if made_here:
                self.close()
        return len(email_messages)


class OldSMTPBackend(SMTPBackend):
    """A site's own, with a signature of its own."""

    def __init__(self, fail_silently: bool = False) -> None:
        keywords = {"alias": None} if hasattr(mail, "mailers") else {}
        super().__init__(fail_silently=fail_silently, **keywords)


class ForwardingBackend(BaseEmailBackend):
    """Sends by whatever EMAIL_BACKEND is."""

    def send_messages(self, email_messages: Any) -> int:
        return sum(email.send() for email in email_messages)


class NotifyingBackend(RecordingBackend):
    """Sends another message about each."""

    def send_messages(self, email_messages: Any) -> int:
        message("It was sent").send()
        return super().send_messages(email_messages)


class SlowBackend(RecordingBackend):
    """Notes by which thread it is used; slow enough that the other workers get a turn."""

    used: set[tuple[RecordingBackend, int]] = set()

    def send_messages(self, email_messages: Any) -> int:
        self.used.add((self, threading.get_ident()))
        time.sleep(0.01)
        return super().send_messages(email_messages)


class IdleBackend(RecordingBackend):
    """Sends nothing, and says so."""

    def send_messages(self, email_messages: Any) -> int:
        return 0


class SiteRelay(QueuedEmailBackend):
    """A site's subclass."""


class QueuedRecordingBackend(QueueingMixin, RecordingBackend):  # type: ignore[misc]
    """The mixin before a backend."""


class QueuedSMTPBackend(QueueingMixin, SMTPBackend):
    """The mixin before Django's SMTP backend."""


class RecordingMixin(TestCase):
    def setUp(self) -> None:
        super().setUp()
        for name, value in (("calls", []), ("failing", set()), ("reachable", True)):
            patch = mock.patch.object(RecordingBackend, name, value)
            patch.start()
            self.addCleanup(patch.stop)

    @property
    def calls(self) -> list[Any]:
        return RecordingBackend.calls

    @property
    def failing(self) -> set[str]:
        return RecordingBackend.failing


@override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.RecordingBackend")
class EmailBackendTests(RecordingMixin):
    """EMAIL_BACKEND is the relay, MAIL_QUEUE_DELIVERY_BACKEND delivers."""

    def drain(self, fails: bool = False) -> str:
        if not fails:
            return process_mail_queue()
        with self.assertLogs(DELIVERY, "WARNING"):
            return process_mail_queue()

    def send(self, *subjects: str) -> None:
        for subject in subjects:
            self.assertEqual(message(subject).send(), 1)

    def test_storing_touches_nothing_behind_it(self) -> None:
        self.send("a")
        with QueuedEmailBackend() as backend:
            backend.send_messages([message("b")])
        self.assertEqual((self.calls, len(open_queue("MAIL_QUEUE"))), ([], 2))

    def test_one_connection_serves_all_messages_and_is_closed(self) -> None:
        self.send("a", "b", "c")
        self.assertIn("3 messages sent", self.drain())
        self.assertEqual(self.calls, ["open", "a", "b", "c", "close"])

    def test_message_that_fails_is_requeued_and_the_next_gets_a_new_connection(self) -> None:
        self.send("a", "b", "c")
        self.failing.add("b")
        self.assertIn("2 messages sent and 0 messages discarded out of 3", self.drain(fails=True))
        self.assertEqual(self.calls, ["open", "a", "b", "close", "open", "c", "close"])
        self.assertEqual(self.attempts(), [1])

    def test_backend_that_cannot_connect_is_asked_once(self) -> None:
        self.send("a", "b")
        with mock.patch.object(RecordingBackend, "reachable", False):
            self.assertIn("0 messages sent and 0 messages discarded out of 2", self.drain(fails=True))
        self.assertEqual((self.calls, self.attempts()), (["open"], [0, 0]))

    def test_backend_that_cannot_be_made_is_asked_once(self) -> None:
        self.send("a", "b")
        with mock.patch.object(RecordingBackend, "__init__", side_effect=ImproperlyConfigured("no key")) as made:
            self.drain(fails=True)
        self.assertEqual((made.call_count, self.attempts()), (1, [0, 0]))

    def test_silence_of_the_backend_behind_is_not_taken_for_success(self) -> None:
        class Silent(RecordingBackend):
            def __init__(self) -> None:
                super().__init__(fail_silently=True)

        self.send("a")
        self.failing.add("a")
        with mock.patch(f"{HERE}.RecordingBackend", Silent), self.assertLogs(DELIVERY, "WARNING") as logged:
            process_mail_queue()
        self.assertIn("it hung up", logged.output[0])

    @override_settings(MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.IdleBackend")
    def test_message_that_was_not_sent_is_requeued_with_a_line_that_says_so(self) -> None:
        self.send("a")
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            self.assertIn("0 messages sent and 0 messages discarded out of 1", process_mail_queue())
        self.assertIn("nobody to send it to, or not sent", logged.output[0])

    def test_subclass_is_drained_as_itself(self) -> None:
        with override_settings(EMAIL_BACKEND=f"{HERE}.SiteRelay"):
            self.send("a")
            self.drain()
        self.assertIn("a", self.calls)

    @override_settings(MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.ForwardingBackend")
    def test_circle_through_a_backend_of_the_site_is_a_failure_of_the_message(self) -> None:
        self.send("a")
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            self.assertIn("0 messages sent and 0 messages discarded out of 1", process_mail_queue())
        self.assertIn("queues it again", logged.output[0])
        self.assertEqual(self.attempts(), [1])

    @override_settings(MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.NotifyingBackend")
    def test_backend_behind_may_queue_other_messages(self) -> None:
        self.send("a")
        self.assertIn("1 message sent", process_mail_queue())
        self.assertEqual(self.attempts(), [0])

    def test_headers_are_left_to_the_backend_behind(self) -> None:
        self.send("a")
        payload = open_queue("MAIL_QUEUE").read()
        assert payload is not None
        self.assertEqual(loads(payload).email.extra_headers, {})

    def attempts(self) -> list[int]:
        payloads = open_queue("MAIL_QUEUE").read_many(100)
        return [loads(payload).extra[META_KEY].get("attempts", 0) for payload in payloads]


class WorkersTests(TransactionTestCase):
    @override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.SlowBackend")
    def test_each_worker_has_a_connection_of_its_own(self) -> None:
        with mock.patch.object(RecordingBackend, "calls", []) as calls, mock.patch.object(SlowBackend, "used", set()):
            for number in range(60):
                message(str(number)).send()
            process_mail_queue()
            backends, threads = map(set, zip(*SlowBackend.used, strict=True))
            self.assertEqual((len(SlowBackend.used), len(backends), len(threads)), (3, 3, 3))
        self.assertEqual(sorted(word for word in calls if word.isdigit()), sorted(map(str, range(60))))
        self.assertEqual((calls.count("open"), calls.count("close")), (3, 3))


class OntoSMTPTests(MailTestCase):
    """Django's own SMTP backend delivers."""

    @override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=SMTP)
    def test_messages_keep_their_message_id_over_one_connection(self) -> None:
        for subject in ("a", "b"):
            message(subject).send()
        identities = [
            loads(payload).email.extra_headers["Message-ID"] for payload in self.queue.read_many(2) if self.put(payload)
        ]
        process_mail_queue()
        self.assertEqual([received["Message-ID"] for received in self.inbox.messages], identities)
        self.assertEqual(self.inbox.connections, 1)

    def put(self, payload: bytes) -> bool:
        return self.queue.write(payload)

    @override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=f"{HERE}.OldSMTPBackend")
    def test_subclass_with_a_signature_of_its_own(self) -> None:
        message("a").send()
        process_mail_queue()
        self.assertEqual(self.inbox.subjects, ["a"])

    @override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=SMTP)
    def test_server_that_says_nothing_is_not_waited_for_for_ever(self) -> None:
        message("a").send()
        with (
            socket.create_server(("127.0.0.1", 0)) as silent,
            override_settings(EMAIL_PORT=silent.getsockname()[1]),
            mock.patch("mailqueue_backend.mail.relay.TIMEOUT", 0.1),
            self.assertLogs(DELIVERY, "WARNING") as logged,
        ):
            process_mail_queue()
        self.assertIn("timed out", logged.output[0])

    @override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=SMTP, EMAIL_USE_TLS=True)
    def test_nothing_goes_out_in_clear_text_after_a_failed_starttls(self) -> None:
        for subject in ("a", "b", "c"):
            message(subject).send()
        for _ in range(2):
            with self.assertLogs(DELIVERY, "WARNING"):
                process_mail_queue()
        self.assertEqual((self.inbox.subjects, len(self.queue)), ([], 3))


class MixinTests(RecordingMixin, MailTestCase):
    """QueueingMixin before a backend."""

    @override_settings(EMAIL_BACKEND=f"{HERE}.QueuedRecordingBackend")
    def test_any_backend_queues_and_delivers(self) -> None:
        message("a").send()
        self.assertEqual(self.calls, [])
        self.assertIn("1 message sent", process_mail_queue())
        self.assertEqual(self.calls, ["open", "a", "close"])

    @override_settings(EMAIL_BACKEND=f"{HERE}.QueuedRecordingBackend")
    def test_it_has_one_worker_since_it_cannot_be_copied(self) -> None:
        self.assertFalse(QueuedRecordingBackend().parallel)

    @override_settings(EMAIL_BACKEND=f"{HERE}.QueuedRecordingBackend")
    def test_backend_that_cannot_connect_is_asked_once(self) -> None:
        message("a").send()
        message("b").send()
        with mock.patch.object(RecordingBackend, "reachable", False), self.assertLogs(DELIVERY, "WARNING"):
            process_mail_queue()
        self.assertEqual(self.calls, ["open"])

    def test_smtp_behind_it_has_message_id_and_date_set_when_queued(self) -> None:
        keywords = {"alias": None} if hasattr(mail, "mailers") else {}
        for backend, names in (
            (QueuedRecordingBackend(), set()),
            (QueuedSMTPBackend(**keywords), {"Message-ID", "Date"}),
        ):
            with self.subTest(type(backend).__name__):
                backend.send_messages([message("a")])
                self.assertEqual(loads(self.queue.read() or b"").email.extra_headers.keys(), names)

    def test_silence_is_about_storing_and_the_backend_behind_never_hears_of_it(self) -> None:
        backend = QueuedRecordingBackend(fail_silently=True)
        self.assertTrue(backend.fail_silently)
        backend.send_messages([message("a")])
        self.failing.add("a")
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            backend.send_queued_messages()
        self.assertIn("it hung up", logged.output[0])
        self.assertTrue(backend.fail_silently)


class WrongSettingsTests(TestCase):
    """Without MAILERS: what the check says, and what sending and draining do."""

    def test_each_is_an_error_of_the_check_and_refused(self) -> None:
        for delivery, reason in (
            (None, "A relay needs MAIL_QUEUE_DELIVERY_BACKEND"),
            ("", "A relay needs MAIL_QUEUE_DELIVERY_BACKEND"),
            (RELAY, "queues its mail itself"),
            (BACKEND, "queues its mail itself"),
            (f"{HERE}.QueuedRecordingBackend", "queues its mail itself"),
            ("nowhere.EmailBackend", "'nowhere.EmailBackend' cannot be imported"),
            (5, "MAIL_QUEUE_DELIVERY_BACKEND in your settings must be str"),
        ):
            with self.subTest(delivery), override_settings(EMAIL_BACKEND=RELAY, MAIL_QUEUE_DELIVERY_BACKEND=delivery):
                self.assertWrong(reason)

    def assertWrong(self, reason: str) -> None:
        (problem,) = check_relay()
        self.assertEqual(problem.id, "mailqueue_backend.E003")
        self.assertIn(reason, problem.msg)
        with self.assertRaisesMessage(ConfigurationError, reason):
            message().send()
        with self.assertRaisesMessage(CommandError, reason):
            process_mail_queue()

    def test_right_settings_and_foreign_backends_pass(self) -> None:
        for backend, delivery in (
            (RELAY, LOCMEM),
            (f"{HERE}.SiteRelay", LOCMEM),
            (BACKEND, None),
            (LOCMEM, None),
            ("nowhere.EmailBackend", None),
        ):
            with (
                self.subTest(backend),
                override_settings(EMAIL_BACKEND=backend, MAIL_QUEUE_DELIVERY_BACKEND=delivery),
            ):
                self.assertEqual(check_relay(), [])


@needs_mailers
class MailersTests(RecordingMixin, MailTestCase):
    """On 6.1: OPTIONS = {"deliver_using": ALIAS}."""

    def mailers(self, **aliases: Any) -> Any:
        return override_settings(MAILERS=aliases)

    def relay(self, alias: str, **options: Any) -> dict[str, Any]:
        return {"BACKEND": RELAY, "OPTIONS": {"deliver_using": alias, **options}}

    def test_delivers_through_that_mailer_with_its_options(self) -> None:
        options = {"host": "127.0.0.1", "port": self.server.port, "fail_silently": True}
        with self.mailers(default=self.relay("direct"), direct={"BACKEND": SMTP, "OPTIONS": options}):
            message("a").send()
            self.assertIn("1 message sent", process_mail_queue())
        self.assertEqual(self.inbox.subjects, ["a"])
        self.assertTrue(self.inbox.messages[0]["Message-ID"])

    def test_relays_and_smtp_share_a_queue(self) -> None:
        target = {"BACKEND": f"{HERE}.RecordingBackend"}
        smtp = {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": self.server.port}}
        with self.mailers(default=smtp, api=self.relay("target"), target=target):
            message("a").send(using="api")
            message("b").send()
            self.assertIn("2 messages sent", process_mail_queue())
        self.assertEqual((self.calls, self.inbox.subjects), (["open", "a", "close"], ["b"]))

    def test_target_that_cannot_connect_does_not_hold_up_the_others(self) -> None:
        target = {"BACKEND": f"{HERE}.RecordingBackend"}
        smtp = {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": self.server.port}}
        with self.mailers(default=smtp, api=self.relay("target"), target=target):
            for subject in ("a", "b"):
                message(subject).send(using="api")
            message("c").send()
            with mock.patch.object(RecordingBackend, "reachable", False), self.assertLogs(DELIVERY, "WARNING"):
                self.assertIn("1 message sent and 0 messages discarded out of 3", process_mail_queue())
        self.assertEqual((self.calls, self.inbox.subjects), (["open"], ["c"]))

    def test_wrong_options_are_an_error_of_the_check_and_refused(self) -> None:
        target = {"BACKEND": f"{HERE}.RecordingBackend"}
        for aliases, reason in (
            ({"default": {"BACKEND": RELAY}}, "A relay needs OPTIONS"),
            ({"default": self.relay("gone")}, "deliver_using = 'gone' is not a mailer in MAILERS"),
            ({"default": self.relay("default")}, "queues its mail itself"),
            ({"default": self.relay("other"), "other": self.relay("target"), "target": target}, "queues its mail"),
            ({"default": self.relay("x"), "x": {"BACKEND": "nowhere.X"}}, "'nowhere.X' cannot be imported"),
            ({"default": self.relay("target", colour="red"), "target": target}, "Unknown options 'colour'"),
        ):
            with self.subTest(reason), self.mailers(**aliases):
                self.assertIn("mailqueue_backend.E003", [problem.id for problem in check_mailers()])
                self.assertTrue(any(reason in problem.msg for problem in check_mailers()))
                with self.assertRaisesMessage(ImproperlyConfigured, reason):
                    message().send()

    def test_circle_of_relays_is_refused_at_each(self) -> None:
        with self.mailers(default=self.relay("other"), other=self.relay("default")):
            self.assertEqual([problem.id for problem in check_mailers()], ["mailqueue_backend.E003"] * 2)
            with self.assertRaisesMessage(CommandError, "queues its mail itself"):
                process_mail_queue()
