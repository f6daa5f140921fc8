"""Base classes for the tests of deliveries: a scripted server, a queue in this process, a discard log."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery.report import Report
from mailqueue_backend.envelope import loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.plain import PlainQueue

from ..cases import message
from . import Script, ScriptedServer, Stored, good

DELIVERY = "mailqueue_backend.delivery"
PIPELINING = ["PIPELINING"]

_numbers = count()


class ArrivalsMixin:
    """Start servers for drains in child processes; all of them store their messages in ``self.arrivals``."""

    def setUp(self) -> None:
        super().setUp()
        self.arrivals: list[Stored] = []

    def serve(self, script: Script = good) -> ScriptedServer:
        """Start a server that offers PIPELINING."""
        server = ScriptedServer(script, stored=self.arrivals, extensions=PIPELINING)
        server.__enter__()
        self.addCleanup(server.__exit__)
        return server

    def arrived(self, name: str = "Subject") -> list[str]:
        """Return this header of each message that has arrived, in order."""
        return [str(stored.message[name]) for stored in self.arrivals]


class ThreadedQueue(PlainQueue):
    """queue-front's dummy, declared safe for threads."""

    parallel = True  # type: ignore[assignment]


class ScriptedTestCase(SimpleTestCase):
    """Deliver to ``self.smtp``, the server that serve() has started."""

    def setUp(self) -> None:
        super().setUp()
        self.directory = Path(self.enterContext(tempfile.TemporaryDirectory()))
        self.log = self.directory / "discards.log"
        self.enterContext(override_settings(QUEUE_BACKEND="dummy", MAIL_QUEUE_LOG_FILENAME=str(self.log)))
        self.queue = ThreadedQueue(open_queue(f"scripted {next(_numbers)}").module_queue)  # type: ignore[attr-defined]

    # Python < 3.11: no enterContext().
    if not hasattr(SimpleTestCase, "enterContext"):

        def enterContext(self, context: Any) -> Any:
            result = context.__enter__()
            self.addCleanup(context.__exit__, None, None, None)
            return result

    def serve(self, script: Script = good, **kwargs: Any) -> ScriptedServer:
        self.smtp: ScriptedServer = self.enterContext(ScriptedServer(script, **kwargs))
        return self.smtp

    def backend(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend, **kwargs: Any) -> QueuedEmailBackend:
        backend = kind("127.0.0.1", self.smtp.port, **{"timeout": 10, **kwargs})
        backend.que = self.queue
        return backend

    def enqueue(self, *subjects: str, to: Iterable[str] = ("to@example.com",), **kwargs: Any) -> None:
        self.backend().send_messages([message(subject, list(to)) for subject in subjects], **kwargs)

    def drain(self, backend: QueuedEmailBackend | None = None, **kwargs: Any) -> Report:
        backend = backend or self.backend()
        backend.send_queued_messages(**kwargs)
        return backend.report

    def failing_drain(self, *args: Any, **kwargs: Any) -> Report:
        """Drain, and store the messages of the delivery log in ``self.lines``."""
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            report = self.drain(*args, **kwargs)
        self.lines = [record.getMessage() for record in logged.records]
        return report

    def left(self) -> list[dict[str, Any]]:
        """Return the package's own metadata of each message in the queue."""
        payloads = self.queue.read_many(9999)
        self.queue.write_many(*payloads)
        return [loads(payload).extra["mailqueue"] for payload in payloads]

    def discards(self) -> list[str]:
        return self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
