"""The drain: one pass over a queue, by one or more workers.

It tries as many messages as were due when it began, each of them once.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from functools import partial
from threading import Thread
from typing import Any

from django.db import connections

from ..errors import QueueUnavailable
from ..logs import get_logger
from ..settings import conf
from ..signals import drain_ended
from .clock import describe_future
from .deadlines import Watchdog
from .events import Announcer, send_signal
from .feed import READY, Feed
from .in_flight import retry_while_unavailable
from .limits import Quota
from .mailer import Mailer
from .policy import NOT_TRIED
from .report import Report
from .session import Session
from .troubles import Troubles
from .words import count, duration
from .worker import Worker

logger = get_logger("delivery")

#: Due messages per worker: a drain starts one worker for each group of this size.
MESSAGES_PER_WORKER = 20


class Drain:
    """One pass over a backend's queue. ``report`` holds the figures so far.

    ``mailers`` maps each alias that a queued message may name to its backend; None is for messages that name no mailer.
    """

    def __init__(self, backend: Any, mailers: Mapping[str | None, Any], expire: float) -> None:
        self.expired = datetime.fromtimestamp(max(time.time() - expire, 0))
        self.report = Report()
        self._options = backend.options
        self._queue = backend.que
        self._announcer = Announcer(backend.options.on_event)
        self._troubles = troubles = self._options.troubles or Troubles()
        backends = {id(each): each for each in (backend, *mailers.values())}
        by_backend = {key: Mailer(each, troubles, is_only=len(backends) == 1) for key, each in backends.items()}
        self._main = by_backend[id(backend)]
        self._mailers = {alias: by_backend[id(each)] for alias, each in mailers.items()}
        self._all_mailers = list(by_backend.values())

    def run(self) -> Report:
        """Try each message that is due now.

        Raises QueueUnavailable if the queue stays unavailable, and ConfigurationError if it cannot be drained here.
        """
        queue, options = self._queue, self._options
        queue.check_can_drain()
        counts = retry_while_unavailable(queue.counts)
        self.report.length = counts.due
        quota = Quota(self.report.length, options)
        group = 1 if not queue.leases or any(mailer.has_own_hook for mailer in self._mailers.values()) else READY
        feed = Feed(queue, conf.MAIL_QUEUE_LEASE, quota, self.report, group, self._can_go_on, self._announcer)
        watchdog = Watchdog(options.stop)
        pool = WorkerPool(self._count_workers(quota), feed, watchdog, partial(self._make_worker, watchdog))
        # An interrupt may cut the first close() short, so it is called twice.
        try:
            try:
                pool.run()
            finally:
                pool.close()
        finally:
            pool.close()
            self.report.recipients_given_up = sum(worker.recipients_given_up for worker in pool.workers)
            for mailer in self._all_mailers:
                mailer.report_refused()
        self._explain(pool, quota)
        with suppress(QueueUnavailable):
            if future := describe_future(queue, counts):
                self._troubles.report(("future", queue.name), future)
        send_signal(drain_ended, type(self._main.backend), {"queue": queue.name, "report": self.report})
        if pool.error is not None:
            raise pool.error
        return self.report

    def _explain(self, pool: WorkerPool, quota: Quota) -> None:
        """Log why messages wait."""
        wanted = min(self.report.length, self._options.limit or self.report.length)
        is_left = not quota.is_over() and self.report.tried < wanted
        reasons = [reason for mailer in self._all_mailers for reason in mailer.reasons(is_left)]
        self.report.reasons_to_wait = reasons
        waiting = self._describe_waiting(pool.workers) if reasons else ""
        for mailer in self._all_mailers:
            mailer.end(is_left, waiting)

    def _describe_waiting(self, workers: Sequence[Worker]) -> str:
        """Return how many messages wait, and for how long the oldest has, or the oldest of those opened."""
        try:
            waiting = self._queue.counts().waiting
        except QueueUnavailable:
            return "How many messages wait is not known, since the queue is unavailable."
        if not waiting:
            return "No message waits."
        now = time.time()
        age = duration(now - min([now, *(worker.oldest for worker in workers)]))
        if waiting == 1:
            return f"1 message waits, since {age}."
        which = "the oldest" if sum(worker.undelivered for worker in workers) >= waiting else "the first"
        return f"{waiting} messages wait, {which} since {age}."

    def _can_go_on(self) -> bool:
        """Return whether at least one mailer of this queue is not blocked, and the stop is not forced."""
        if self._options.stop.forced_by is not None:
            return False
        name = self._main.backend.queue_name
        return any(mailer.blocked is None for mailer in self._all_mailers if mailer.backend.queue_name == name)

    def _count_workers(self, quota: Quota) -> int:
        """Return the maximum number of workers for the backlog."""
        if not (self._queue.parallel and all(mailer.backend.parallel for mailer in self._mailers.values())):
            return 1
        most = self._options.workers or conf.MAIL_QUEUE_WORKERS
        if quota.rate:
            most = min(most, math.ceil(quota.rate))
        return max(min(most, -(-quota.left // MESSAGES_PER_WORKER)), 1)

    def _make_worker(self, watchdog: Watchdog, is_first: bool) -> Worker:
        def open_session(mailer: Mailer) -> Session:
            backend = mailer.backend if is_first else mailer.backend._copy_for_worker()
            return Session(mailer, backend, watchdog.new_deadline(), self._options.stop)

        wants_events = self._announcer.is_listened_to
        return Worker(self._main, self._mailers, open_session, self.expired, self._queue.leases, wants_events)


class WorkerPool:
    """The workers of a drain: one in the calling thread, or several, each in its own thread."""

    def __init__(self, size: int, feed: Feed, watchdog: Watchdog, make_worker: Callable[[bool], Worker]) -> None:
        self.size = size
        #: The error that ended a worker; run() raises it after the drain.
        self.error: Exception | None = None
        self._feed = feed
        self._watchdog = watchdog
        self._make_worker = make_worker
        self.workers: list[Worker] = []
        self._threads: list[Thread] = []

    def run(self) -> None:
        """Deliver the messages that the feed hands out."""
        try:
            self._watchdog.start()
        except RuntimeError as error:
            logger.warning("The drain goes on without deadlines for messages: %s", error)
        if self.size > 1:
            self.start()
        if self._threads:
            self._feed.serve(self)
        else:
            self.workers.append(self._make_worker(True))
            self.workers[0].on_dot = self._feed.in_flight.extend_for_dot
            self.workers[0].run(iter(self._feed.next, None), self._feed.outbox.put)

    def close(self) -> None:
        """Wait for each worker to finish its message, close the connections, and settle. May be called again."""
        self._feed.stop_workers(self.started)
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        for worker in self.workers:
            worker.close()
        self._watchdog.stop()
        self._feed.close()

    @property
    def started(self) -> int:
        """Number of threads started."""
        return len(self._threads)

    def is_working(self) -> bool:
        """Return whether any thread is still running."""
        return any(thread.is_alive() for thread in self._threads)

    def start(self) -> None:
        """Start the first worker, and the others once a worker has connected, which shows that the server answers."""
        while len(self._threads) < (self.size if any(worker.has_connected for worker in self.workers) else 1):
            worker = self._make_worker(not self._threads)
            thread = Thread(target=self._run, args=[worker], name=f"mailqueue-worker-{len(self._threads)}")
            self.workers.append(worker)
            self._threads.append(thread)
            try:
                thread.start()
            except RuntimeError as error:
                self._threads.remove(thread)
                self.workers.remove(worker)
                self.size = len(self._threads)
                logger.warning("The drain goes on with %s: %s", count(max(self.size, 1), "worker"), error)
                return

    def _run(self, worker: Worker) -> None:
        completed = False
        try:
            worker.run(iter(self._feed.inbox.get, None), self._feed.report_done)
            completed = True
        except Exception as error:  # Drain.run() raises it in the calling thread
            logger.exception("A worker has failed.")
            self.error = error
        finally:
            # Also after SystemExit or CancelledError, since the feed waits for a disposition of each message.
            if not completed:
                self.error = self.error or RuntimeError("A worker was ended by a BaseException.")
                if worker.delivery is not None and worker.delivery.disposition is None:
                    worker.delivery.disposition = NOT_TRIED
            connections.close_all()
