"""Support for a site's own tests: queued mail is delivered to ``mail.outbox``."""

from __future__ import annotations

import socket
from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.core.management import call_command
from django.test import TestCase, override_settings
from django.utils import translation
from django.utils.translation import gettext_lazy

from mailqueue_backend.queues import open_queue
from mailqueue_backend.test import deliver_to_outbox
from tests.cases import BACKEND, message

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
QUEUE = "MAIL_QUEUE"

needs_mailers = skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")


def subjects() -> list[str]:
    return [sent.subject for sent in mail.outbox]


class PlainRunTests(TestCase):
    """Django has replaced all backends with locmem."""

    def test_mail_is_in_the_outbox_at_once_and_nothing_is_queued(self) -> None:
        message("Hello").send()
        self.assertEqual((subjects(), len(open_queue(QUEUE))), (["Hello"], 0))
        self.assertEqual(deliver_to_outbox(), (0, 0, 0))

    def test_command_says_that_nothing_is_ours_and_opens_no_connection(self) -> None:
        with override_settings(EMAIL_BACKEND=BACKEND):
            message("queued").send()
        stdout, stderr = StringIO(), StringIO()
        with mock.patch.object(socket.socket, "connect", side_effect=ConnectionRefusedError) as connect:
            call_command("process_mail_queue", stdout=stdout, stderr=stderr)
        connect.assert_not_called()
        self.assertEqual((subjects(), len(open_queue(QUEUE))), ([], 1))
        self.assertEqual(stdout.getvalue(), "0 messages sent and 0 messages discarded out of 0 messages.\n")
        self.assertIn("No mailer of this site queues its mail", stderr.getvalue())


@override_settings(EMAIL_BACKEND=BACKEND)
class QueuedRunTests(TestCase):
    """The test has restored the queued backend."""

    def test_queue_is_drained_into_the_outbox(self) -> None:
        message("a").send()
        message("b", cc=["cc@example.com"]).send()
        self.assertEqual(subjects(), [])
        self.assertEqual(deliver_to_outbox(), (2, 0, 2))
        self.assertEqual((subjects(), len(open_queue(QUEUE))), (["a", "b"], 0))
        self.assertEqual(mail.outbox[1].recipients(), ["to@example.com", "cc@example.com"])

    def test_messages_have_passed_through_the_queue(self) -> None:
        original = EmailMultiAlternatives(gettext_lazy("Monday"), "Text", "from@example.com", ["to@example.com"])
        original.attach_alternative("<p>Text</p>", "text/html")
        original.attach("a.pdf", b"%PDF", "application/pdf")
        with translation.override("de"):
            original.send()
        deliver_to_outbox()
        (sent,) = mail.outbox
        self.assertIsNot(sent, original)
        self.assertIsInstance(sent, EmailMultiAlternatives)
        self.assertEqual(sent.subject, "Montag")
        self.assertEqual(sent.alternatives[0][0], "<p>Text</p>")
        self.assertEqual(sent.attachments[0][1], b"%PDF")
        self.assertIn("Message-ID", sent.extra_headers)

    def test_another_queue_can_be_named(self) -> None:
        message("a").send()
        with override_settings(MAIL_QUEUE_NAME="OTHER"):
            message("b").send()
        self.assertEqual((deliver_to_outbox("OTHER"), subjects()), ((1, 0, 1), ["b"]))

    def test_no_server_is_used_even_after_the_override_has_ended(self) -> None:
        message("a").send()
        with (
            override_settings(EMAIL_BACKEND=LOCMEM),
            mock.patch.object(socket.socket, "connect", side_effect=ConnectionRefusedError) as connect,
        ):
            self.assertEqual(deliver_to_outbox(), (1, 0, 1))
        connect.assert_not_called()

    def test_message_that_cannot_be_delivered_stays_or_expires(self) -> None:
        created = datetime.now() - timedelta(days=2)
        backend: Any = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
        backend.send_messages([message("new")])
        backend.send_messages([message("old")], created=created)
        with (
            mock.patch.object(LocmemBackend, "send_messages", side_effect=ValueError("broken")),
            self.assertLogs("mailqueue_backend.delivery", "WARNING"),
            self.assertLogs("smtp.mail_queue"),
        ):
            self.assertEqual(deliver_to_outbox(), (0, 1, 2))
        self.assertEqual(len(open_queue(QUEUE)), 1)


@needs_mailers
class MailersTests(TestCase):
    SITE = {
        "default": {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1"}},
        "news": {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1"}},
    }

    def test_outbox_shows_the_mailer_of_each_message(self) -> None:
        with override_settings(MAILERS=self.SITE):
            message("a").send()
            message("b").send(using="news")
            self.assertEqual(deliver_to_outbox(), (2, 0, 2))
        self.assertEqual([(sent.subject, sent.sent_using) for sent in mail.outbox], [("a", "default"), ("b", "news")])

    def test_message_that_names_no_mailer_is_delivered(self) -> None:
        with override_settings(EMAIL_BACKEND=BACKEND):
            message("a").send()
        with override_settings(MAILERS=self.SITE):
            self.assertEqual(deliver_to_outbox(), (1, 0, 1))

    def test_mailers_may_be_locmem_again(self) -> None:
        with override_settings(MAILERS=self.SITE):
            message("b").send(using="news")
        with override_settings(MAILERS={alias: {"BACKEND": LOCMEM} for alias in self.SITE}):
            self.assertEqual(deliver_to_outbox(), (1, 0, 1))

    def test_message_of_a_removed_mailer_waits_as_on_the_site(self) -> None:
        with override_settings(MAILERS=self.SITE):
            message("b").send(using="news")
        with (
            override_settings(MAILERS={"default": self.SITE["default"]}),
            self.assertLogs("mailqueue_backend", "WARNING"),
        ):
            self.assertEqual(deliver_to_outbox(), (0, 0, 1))
