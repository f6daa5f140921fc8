"""The drain: one pass over a queue, by as many workers as its backlog is worth.

Each message of the queue, as long as it was when the drain began, is tried once.
"""

from __future__ import annotations

import time
from datetime import datetime
from threading import Lock, Thread

from django.db import connections

from ..logs import get_logger
from ..settings import conf
from .deadlines import Watchdog
from .outcomes import Report
from .quota import Quota
from .retrying import persist
from .routes import Backend, Routes
from .worker import Worker

logger = get_logger("delivery")

#: A further connection is worth its while for each so many messages that are due.
MESSAGES_PER_WORKER = 20


class Drain:
    """One pass over a backend's queue. ``report`` tells how far it has come."""

    def __init__(self, backend: Backend, expire: float) -> None:
        self.backend = backend
        self.expired = datetime.fromtimestamp(max(time.time() - expire, 0))
        self.report = Report()
        self._lock = Lock()
        #: None: not started yet.
        self._helpers: list[Thread] | None = None
        #: How many of them are at work.
        self._helping = 0
        self._error: Exception | None = None

    def run(self) -> Report:
        """Try each message that is due now. Raises QueueUnavailable when the queue fails for good."""
        options = self.backend.options
        self.report.length = persist(self.backend.que.counts).due
        self._quota = Quota(self.report.length, options)
        with Watchdog(options.stop) as watchdog:
            self._routes = Routes(self.backend, self.backend._mailers(), watchdog, self._start_helpers)
            self._first = self._worker(self._routes, alone=self._workers() == 1)
            self._work()
        if self._error is not None:
            raise self._error
        return self.report

    def _worker(self, routes: Routes, alone: bool = False) -> Worker:
        return Worker(routes, self._quota, self.report, self.expired, alone)

    def _work(self) -> None:
        """Let the first worker work in this thread, and wait for the others; an interrupt ends them all."""
        done = False
        try:
            self._first.run(self._start_helpers)
            self._join_helpers()
            if self._helpers and not self.backend.unreachable:
                # What they have passed over when this one had no leave to take more.
                self._first.run()
            done = True
        finally:
            if not done:
                self._quota.close()
            self._join_helpers()

    def _join_helpers(self) -> None:
        for thread in self._helpers or ():
            thread.join()

    def _workers(self) -> int:
        if not (self._routes.parallel and self.backend.que.parallel):
            return 1
        most = self.backend.options.workers or conf.MAIL_QUEUE_WORKERS
        return min(most, -(-self._quota.messages // MESSAGES_PER_WORKER))

    def _start_helpers(self) -> None:
        """Start the other workers, once: the first has shown that the server answers.

        Not yet, while what it has in hand may have killed a process: it may kill this one, and what is in hand then.
        """
        if self._helpers is not None or self._first.may_die:
            return
        self._helpers = []
        for number in range(1, self._workers()):
            thread = Thread(target=self._help, args=[self._routes.helpers()], name=f"mailqueue-worker-{number}")
            try:
                self._count_helpers(+1)
                thread.start()
            except RuntimeError as error:
                self._count_helpers(-1)
                logger.warning("The drain goes on with %d workers: %s", number, error)
                return
            self._helpers.append(thread)

    def _help(self, routes: Routes) -> None:
        """Work in a thread of its own."""
        try:
            self._worker(routes).run()
        except Exception as error:  # raised in the calling thread, at the end
            logger.exception("A worker has failed.")
            self._error = error
        finally:
            self._count_helpers(-1)
            connections.close_all()

    def _count_helpers(self, change: int) -> None:
        """Let the first worker know whether there are others, to whom it can leave the work."""
        with self._lock:
            self._helping += change
            self.backend.helping = self._helping > 0 and not self._routes.several
