"""The history in processes of their own: a drain that is killed, drains that are interrupted, and the admin."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from typing import Any

from django.test import SimpleTestCase, TransactionTestCase, tag

from mailqueue_backend.history.models import Recipient
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import TOP
from tests.cases import message
from tests.engines.takers import WARNINGS
from tests.kill.children import DRAIN, Site, quieten
from tests.smtp.cases import ArrivalsMixin

from .test_interrupts import INTERRUPTS, InterruptsMixin

#: Drains, and dies after the history is written, before the queue is told.
DIES = """
import os, signal
import django
django.setup()
from django.core.management import call_command
from mailqueue_backend.signals import message_events
def die(**kwargs):
    os.kill(os.getpid(), signal.SIGKILL)
message_events.connect(die)
call_command("process_mail_queue")
"""


class HistorySite(Site):
    """A site whose child processes write the history, in the database of the queue."""

    def _engine(self) -> dict[str, Any]:
        engine = super()._engine()
        return {**engine, "INSTALLED_APPS": [*engine["INSTALLED_APPS"], "mailqueue_backend.history"]}


class KilledTests(ArrivalsMixin, TransactionTestCase):
    def test_a_copy_after_a_kill_makes_no_second_row(self) -> None:
        quieten(self)
        site, port = HistorySite("sqlite", MAIL_QUEUE_LEASE=1), self.serve().port
        with site.here():
            QueuedEmailBackend().send_messages([message()])
        killed = site.spawn("-c", DIES, port=port)
        self.assertEqual(killed.wait(30), -signal.SIGKILL)
        first = Recipient.objects.get()
        self.assertEqual((first.status, first.attempts), ("accepted", 1))
        time.sleep(1.1)
        self.assertEqual(site.spawn(*DRAIN, port=port, stdout=subprocess.DEVNULL).wait(30), 0)
        again = Recipient.objects.get()
        self.assertEqual((again.pk, again.status, len(self.arrivals)), (first.pk, "accepted", 2))


class InterruptedTests(InterruptsMixin, TransactionTestCase):
    engine = "sqlite"

    def site(self) -> Site:
        return HistorySite(self.engine)

    @tag("slow")
    def test_sample_of_lines(self) -> None:
        for interrupt in INTERRUPTS:
            with self.subTest(interrupt):
                self.check(interrupt, "none", workers=1, stride=13)


class PageTests(SimpleTestCase):
    def test_pages_of_the_admin(self) -> None:
        environ: dict[str, Any] = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.history.settings"}
        command = [sys.executable, *WARNINGS, "-m", "django", "test", "tests.history.pages"]
        run = subprocess.run(command, cwd=TOP, env=environ, capture_output=True, text=True, check=False)
        self.assertEqual(run.returncode, 0, run.stderr)
        self.assertIn("OK", run.stderr)
