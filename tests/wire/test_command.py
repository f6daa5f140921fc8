"""process_mail_queue: which backends it drains, what it prints, how it exits."""

from __future__ import annotations

import os
import subprocess
import sys
from io import StringIO
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.mailers import backends_to_drain
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.paused import pause
from tests.cases import BACKEND, MailTestCase, enqueue, process_mail_queue
from tests.smtp.inbox import SMTPServerMixin

SMTP = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
ZERO = "0 messages sent and 0 messages discarded out of 0 messages.\n"


class SiteBackend(QueuedEmailBackend):
    """A site's subclass."""


class WhichBackendTests(MailTestCase):
    def assertDrains(self, *classes: type) -> None:
        self.assertEqual([type(backend) for backend in backends_to_drain()], list(classes))

    def test_email_backend_that_is_ours(self) -> None:
        self.assertDrains(QueuedEmailBackend)

    @override_settings(EMAIL_BACKEND="tests.wire.test_command.SiteBackend")
    def test_email_backend_that_is_a_subclass(self) -> None:
        self.assertDrains(SiteBackend)

    @override_settings(EMAIL_BACKEND=SMTP)
    def test_another_email_backend_means_smtp_with_the_email_settings(self) -> None:
        self.assertDrains(QueuedEmailBackend)
        enqueue("Hello")
        process_mail_queue()
        self.assertEqual(self.inbox.subjects, ["Hello"])

    @override_settings(EMAIL_BACKEND=LOCMEM)
    def test_nothing_is_ours_in_a_test_run(self) -> None:
        self.assertDrains()
        enqueue("Hello")
        stdout, stderr = StringIO(), StringIO()
        call_command("process_mail_queue", stdout=stdout, stderr=stderr)
        self.assertEqual(stdout.getvalue(), ZERO)
        self.assertIn("No mailer of this site", stderr.getvalue())
        self.assertEqual((self.inbox.connections, len(self.queue)), (0, 1))


@skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
class MailersTests(MailTestCase):
    def mailers(self, **backends: str) -> Any:
        options = {"host": "127.0.0.1", "port": self.server.port}
        return override_settings(
            MAILERS={alias: {"BACKEND": path, "OPTIONS": options} for alias, path in backends.items()}
        )

    def test_one_backend_drains_each_queue_of_ours(self) -> None:
        with self.mailers(default=BACKEND, direct=SMTP, site="tests.wire.test_command.SiteBackend"):
            self.assertEqual([backend.alias for backend in backends_to_drain()], ["default"])

    def test_mail_is_queued_and_delivered(self) -> None:
        with self.mailers(default=BACKEND):
            mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
            self.assertEqual(self.inbox.subjects, [])
            self.assertEqual(process_mail_queue(), "1 message sent and 0 messages discarded out of 1 message.\n")
        self.assertEqual(self.inbox.subjects, ["Hello"])


class ExitTests(MailTestCase):
    def test_unknown_word_is_refused(self) -> None:
        with self.assertRaises(CommandError):
            process_mail_queue("tset")

    def test_queue_that_is_down_is_an_error_with_its_reason(self) -> None:
        with (
            mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=QueueUnavailable("it is down")),
            self.assertRaisesMessage(CommandError, "it is down"),
        ):
            process_mail_queue()


@override_settings(EMAIL_BACKEND=BACKEND)
class SideBySideTests(SMTPServerMixin, TransactionTestCase):
    def test_two_drains_at_once_share_the_work_and_both_exit_with_0(self) -> None:
        subjects = [f"message {number}" for number in range(40)]
        enqueue(*subjects)
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_EMAIL_PORT": str(self.server.port)}
        command = [sys.executable, "-m", "django", "process_mail_queue"]
        drains = [subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE) for _ in range(2)]
        outputs = [process.communicate(timeout=60)[0] for process in drains]
        self.assertEqual([process.returncode for process in drains], [0, 0], outputs)
        self.assertEqual(sorted(self.inbox.subjects), sorted(subjects))
        self.assertEqual(sum(int(output.split()[0]) for output in outputs), 40)


class PausedTests(MailTestCase):
    def test_command_says_that_the_queue_is_paused(self) -> None:
        enqueue("Hello")
        pause(self.queue, "moving the server")
        stdout, stderr = StringIO(), StringIO()
        call_command("process_mail_queue", stdout=stdout, stderr=stderr)
        pause_line, summary = stdout.getvalue().splitlines()
        self.assertTrue(pause_line.startswith("MAIL_QUEUE is paused: moving the server. Nothing is delivered"))
        self.assertEqual(summary, "0 messages sent and 0 messages discarded out of 1 message.")
        self.assertEqual((stderr.getvalue(), self.inbox.connections, len(self.queue)), ("", 0, 1))
