"""What the workers of a drain note of one mailer, all at once."""

from __future__ import annotations

import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any
from unittest import mock

from django.test import SimpleTestCase

from mailqueue_backend.delivery.mailer import Mailer, Refused
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.delivery.verdict import Reply

STEPS: Any = ("MAIL", "RCPT", "DATA")


class ThreadsTests(SimpleTestCase):
    def setUp(self) -> None:
        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        self.addCleanup(logging.disable, logging.root.manager.disable)
        sys.setswitchinterval(1e-6)
        logging.disable()

    def note(self, mailer: Mailer, worker: int) -> None:
        for number in range(2000):
            sender = f"{number % 7}@example.com"
            if number % 4:
                reply = Reply(STEPS[number % 3], 450 + number % 5, "later")
                domains = {f"{number % 3}.example"}
                mailer.note_refused(Refused(sender, reply, f"{worker} {number}", domains, ["line"]))
            else:
                mailer.note_accepted(sender)

    def test_refusals_and_deliveries_at_once_raise_nothing(self) -> None:
        mailer = Mailer(SimpleNamespace(_has_own_hook=False), Troubles())
        with mock.patch.object(mailer, "report"), ThreadPoolExecutor(8) as pool:
            list(pool.map(self.note, [mailer] * 8, range(8)))
