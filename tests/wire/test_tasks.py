"""mailqueue_backend.tasks, on Django 6.0 and later."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from unittest import mock, skipIf, skipUnless

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import MailTestCase, enqueue

HAS_TASKS = find_spec("django.tasks") is not None
IMMEDIATE = {"default": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"}}


@skipUnless(HAS_TASKS, "django.tasks came with Django 6.0")
@override_settings(TASKS=IMMEDIATE)
class TaskTests(MailTestCase):
    def run_task(self, **kwargs: object) -> object:
        from mailqueue_backend.tasks import process_mail_queue

        self.result = process_mail_queue.enqueue(**kwargs)
        return self.result.return_value

    def test_delivers_and_returns_the_figures(self) -> None:
        enqueue("a", "b")
        figures = self.run_task()
        self.assertEqual(self.inbox.subjects, ["a", "b"])
        self.assertEqual((figures["sent"], figures["length"], figures["failure"]), (2, 2, None))
        self.assertEqual(json.loads(json.dumps(figures)), figures)

    def test_takes_the_limits_of_the_command(self) -> None:
        enqueue("a", "b", "c")
        self.assertEqual(self.run_task(limit=2, time_limit=60, workers=1, expire=60, using="default")["sent"], 2)

    def test_fails_if_the_queue_is_unavailable(self) -> None:
        broken = mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=QueueUnavailable("down"))
        with broken, self.assertLogs("django.tasks", "ERROR"), self.assertRaisesMessage(ValueError, ""):
            self.run_task()
        self.assertEqual(self.result.errors[0].exception_class, QueueUnavailable)


@skipIf(HAS_TASKS, "this Django has django.tasks")
class OlderDjangoTests(SimpleTestCase):
    def test_the_error_says_what_to_use_instead(self) -> None:
        command = [sys.executable, "-c", "import mailqueue_backend.tasks"]
        error = subprocess.run(command, capture_output=True, text=True, check=False).stderr
        self.assertIn("ImportError: mailqueue_backend.tasks needs django.tasks, which Django has since 6.0.", error)
