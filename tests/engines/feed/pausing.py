"""A queue that is paused, before a drain or during one."""

from __future__ import annotations

from django.db import connections

from mailqueue_backend.errors import ConfigurationError
from mailqueue_backend.queues.paused import pause, paused_reason, resume
from tests.smtp.scripts import Action

from .base import MANY, FeedMixin


class PauseContract(FeedMixin):
    """A drain delivers nothing while its queue is paused, and sending stays possible."""

    def setUp(self) -> None:
        super().setUp()
        if self.queue.pausable:
            self.addCleanup(resume, self.queue)

    def test_drain_of_a_paused_queue_delivers_nothing(self) -> None:
        self.need("pausable")
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.start_anew()
                pause(self.queue, "moving the server")
                self.enqueue(*MANY[:50])
                report = self.drain(workers=workers)
                self.assertEqual((report.length, report.tried, self.smtp.connections), (50, 0, 0))
                self.assertEqual(report.paused, "moving the server")
                self.assertLeft(*MANY[:50])

    def test_resumed_queue_is_delivered(self) -> None:
        self.need("pausable")
        pause(self.queue, "")
        self.enqueue("a")
        self.drain()
        resume(self.queue)
        self.assertEqual((self.drain().paused, self.sent()), (None, ["a"]))

    def test_drain_stops_when_its_queue_is_paused(self) -> None:
        self.need("pausable")
        self.set(PAUSE_INTERVAL=0)
        self.enqueue(*MANY)

        def script(step: str, argument: str) -> Action:
            if step == "dot" and len(self.smtp.stored) == 5:
                pause(self.queue, "enough")
                connections.close_all()  # those of the server's thread
            return None

        self.script = script
        report = self.drain()
        self.assertIsNotNone(report.paused)
        self.assertIn(len(self.sent()), range(6, 20))
        self.assertLeft(*MANY[len(self.sent()) :])

    def test_module_that_may_know_only_one_queue_cannot_be_paused(self) -> None:
        if self.queue.pausable:
            self.skipTest("This engine has several queues")
        self.enqueue("a")
        with self.assertRaisesMessage(ConfigurationError, "cannot be paused"):
            pause(self.queue, "no")
        self.assertEqual((paused_reason(self.queue), self.drain().sent), (None, 1))
