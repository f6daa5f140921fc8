"""The drain: one pass over a queue, by as many workers as its backlog is worth.

Each message of the queue, as long as it was when the drain began, is tried once.
"""

from __future__ import annotations

import logging
import time
from datetime import datetime
from threading import Lock, Thread

from django.db import connections

from ..settings import conf
from .deadlines import Watchdog
from .outcomes import Report
from .quota import Quota
from .worker import Backend, Worker

logger = logging.getLogger("mailqueue_backend.delivery")

#: A further connection is worth its while for each so many messages that are due.
MESSAGES_PER_WORKER = 20


class Drain:
    """One pass over a backend's queue. ``report`` tells how far it has come."""

    def __init__(self, backend: Backend, expire: float) -> None:
        self.backend = backend
        self.expired = datetime.fromtimestamp(max(time.time() - expire, 0))
        self.report = Report()
        self._helpers: list[Thread] | None = None
        self._lock = Lock()
        self._error: Exception | None = None

    def run(self) -> Report:
        """Try each message that is due now. Raises QueueUnavailable when the queue fails for good."""
        options = self.backend.options
        self.report.length = self.backend.que.counts().due
        self._quota = Quota(self.report.length, options)
        with Watchdog() as self._watchdog:
            options.stop.let_go = self._watchdog.fire_all
            try:
                self._worker(self.backend).run(self._start_helpers)
                self._join_helpers()
                if self._helpers and not self.backend.unreachable:
                    # What the helpers have passed over, and this worker had no leave to take.
                    self._worker(self.backend).run()
            finally:
                self._quota.close()
                self._join_helpers()
        if self._error is not None:
            raise self._error
        return self.report

    def _worker(self, backend: Backend) -> Worker:
        return Worker(backend, self._quota, self.report, self.expired, self._watchdog.new_deadline())

    def _start_helpers(self) -> None:
        """Start the other workers, once: the first has shown that the server answers."""
        with self._lock:
            if self._helpers is not None:
                return
            self._helpers = []
        for number in range(1, self._workers()):
            thread = Thread(target=self._help, args=[self.backend._helper()], name=f"mailqueue-worker-{number}")
            thread.start()
            self._helpers.append(thread)

    def _join_helpers(self) -> None:
        for thread in self._helpers or ():
            thread.join()

    def _workers(self) -> int:
        if not self.backend.parallel:
            return 1
        most = self.backend.options.workers or conf.MAIL_QUEUE_WORKERS
        return min(most, -(-self.report.length // MESSAGES_PER_WORKER))

    def _help(self, backend: Backend) -> None:
        """Work in a thread of its own."""
        try:
            self._worker(backend).run()
        except Exception as error:  # raised in the calling thread, at the end
            logger.exception("A worker has failed.")
            self._error = error
        finally:
            connections.close_all()
