"""The base class of the feed's tests: a separate queue for each test, a mail server, and drains."""

from __future__ import annotations

import faulthandler
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.core.mail import EmailMessage
from django.db import connections

from mailqueue_backend.delivery import feed, in_flight
from mailqueue_backend.delivery.limits import DrainOptions
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.envelope import loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Counts
from tests.kill.children import Site, quieten
from tests.smtp import Script, ScriptedServer
from tests.smtp.cases import ThreadedQueue

if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object

#: Seconds after which a drain counts as hung.
TIMEOUT = 60
#: Subjects of enough messages for three workers.
MANY = [f"{number:02}" for number in range(60)]


class FeedMixin(Base):
    """Set up a separate queue and a mail server for each test."""

    engine: str

    def setUp(self) -> None:
        super().setUp()
        quieten(self)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        log = tempfile.TemporaryDirectory()
        self.addCleanup(log.cleanup)
        site = Site(self.engine, MAIL_QUEUE_LOG_FILENAME=str(Path(log.name, "discards.log")))
        self.use(site.here())
        self.queue = site.queue()
        if self.engine == "dummy":
            self.queue = ThreadedQueue(self.queue.module_queue)  # type: ignore[attr-defined]
        self.addCleanup(lambda: self.queue.read_many(999))
        self.smtp = self.use(ScriptedServer(lambda step, argument: self.script(step, argument)))
        self.script: Script = lambda step, argument: None

    def use(self, context: Any) -> Any:
        """Enter a context manager until the test ends; Python < 3.11 has no enterContext()."""
        entered = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return entered

    def need(self, ability: str) -> None:
        if not getattr(self.queue, ability):
            self.skipTest(f"{type(self.queue).__name__} has no {ability}")

    def set(self, **constants: float) -> None:
        """Patch constants of delivery.feed or delivery.in_flight."""
        for name, value in constants.items():
            self.use(mock.patch.object(feed if hasattr(feed, name) else in_flight, name, value))

    def backend(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend, **options: Any) -> QueuedEmailBackend:
        backend = kind("127.0.0.1", self.smtp.port, timeout=10)
        backend.que, backend.options = self.queue, DrainOptions(**options)
        return backend

    def enqueue(self, *subjects: str) -> None:
        self.backend().send_messages([EmailMessage(subject, to=["to@example.com"]) for subject in subjects])

    def drain(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend, **options: Any) -> Report:
        backend = self.backend(kind, **{"workers": 1, **options})
        backend.send_queued_messages()
        return backend.report

    def down(self, **options: Any) -> Report:
        """Drain while no server listens."""
        with mock.patch.object(self.smtp, "port", 9):
            return self.drain(**options)

    def start_anew(self) -> None:
        """Empty the queue and the server's mailbox."""
        self.queue.read_many(999)
        self.smtp.stored.clear()

    def sent(self) -> list[str]:
        return [stored.subject for stored in self.smtp.stored]

    def left(self) -> list[Any]:
        """Return the envelopes that are queued, in order."""
        payloads = self.queue.read_many(999)
        if payloads:
            self.queue.write_many(*payloads)
        return [loads(payload) for payload in payloads]

    def subjects(self) -> list[str]:
        return [envelope.email.subject for envelope in self.left()]

    def assertLeft(self, *subjects: str) -> None:
        """Assert that these messages are queued, in order where the engine keeps it, and that none is reserved."""
        self.assertEqual(self.queue.counts().reserved, 0)
        if self.queue.keeps_place:
            self.assertEqual(self.subjects(), list(subjects))
        self.assertEqual(Counter(self.subjects()), Counter(subjects))

    def watch(self, step: str = "RCPT", delay: float = 0.0) -> list[Counts]:
        """Return a list to which each of the server's sessions adds the queue's counts when it reaches the step."""
        seen: list[Counts] = []

        def script(reached: str, argument: str) -> None:
            if reached == step:
                try:
                    seen.append(self.queue.counts())
                finally:
                    connections.close_all()
                time.sleep(delay)

        self.script = script
        return seen

    def die(self) -> None:
        """Reserve the first message, die, and wait until the lease has ended."""
        consumer = self.queue.consumer(0.05)
        consumer.exchange(wanted=1)
        consumer.held.clear()
        time.sleep(0.1)
