"""Suspects: messages that a process held when it died."""

from __future__ import annotations

import threading
import time
from unittest import mock

from django.db import connections

from .base import MANY, FeedMixin


class SuspectContract(FeedMixin):
    """The promises about messages that a process held when it died."""

    def test_suspect_is_delivered_first_and_with_nothing_else_reserved(self) -> None:
        self.need("leases")
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.start_anew()
                reserved = self.watch("dot")
                self.enqueue(*MANY[:40])
                self.die()
                self.drain(workers=workers)
                self.assertEqual((self.sent()[0], sorted(self.sent())), ("00", MANY[:40]))
                self.assertEqual(reserved[0].reserved, 1)

    def test_busy_drain_pauses_for_a_suspect_that_appears(self) -> None:
        self.need("leases")
        self.set(SUSPECTS_WAIT=0.05)
        self.enqueue(*MANY)
        appeared = threading.Event()

        def script(step: str, argument: str) -> None:
            if step == "dot" and not appeared.is_set() and len(self.smtp.stored) >= 3:
                appeared.set()
                self.die()
                connections.close_all()
            time.sleep(0.005 if step == "dot" else 0)

        self.script = script
        with mock.patch("mailqueue_backend.queues.database.consumer.SEARCH_INTERVAL", 0.05):
            report = self.drain(workers=3)
        self.assertEqual((report.sent, sorted(self.sent())), (60, MANY))
        self.assertLeft()
