"""Base classes and helpers of most tests: a queue, a mail server, a discard log."""

from __future__ import annotations

import tempfile
from io import StringIO
from pathlib import Path
from typing import Any

from django.core.mail import EmailMessage
from django.core.management import call_command
from django.test import SimpleTestCase, TestCase, override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue

from .smtp.inbox import SMTPServerMixin

BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"


class DiscardLogMixin(SimpleTestCase):
    """Use a separate discard log, ``self.log``, for each test."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")
        settings = override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.log))
        settings.enable()
        self.addCleanup(settings.disable)

    def log_lines(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []


@override_settings(EMAIL_BACKEND=BACKEND)
class QueueTestCase(DiscardLogMixin, TestCase):
    """A site with the database queue and without a mail server."""

    @property
    def queue(self) -> MessageQueue:
        return open_queue("MAIL_QUEUE")


class MailTestCase(SMTPServerMixin, QueueTestCase):
    """A site with the database queue, whose EMAIL_HOST is ``self.inbox``."""


def message(subject: str = "Hello", to: Any = ("to@example.com",), **kwargs: Any) -> EmailMessage:
    return EmailMessage(subject=subject, body="Body", from_email="from@example.com", to=to, **kwargs)


def enqueue(*subjects: str, **kwargs: Any) -> None:
    QueuedEmailBackend().send_messages([message(subject) for subject in subjects], **kwargs)


def drain(backend: Any = None, **kwargs: Any) -> Any:
    """Drain and return the report. A test in which deliveries fail must expect the warnings itself."""
    backend = backend or QueuedEmailBackend()
    backend.send_queued_messages(**kwargs)
    return backend.report


def process_mail_queue(*args: str) -> str:
    stdout = StringIO()
    call_command("process_mail_queue", *args, stdout=stdout)
    return stdout.getvalue()
