"""The feed: hand messages to the workers of a drain, and settle the finished ones.

It runs in the calling thread, the only one that talks to the queue::

    queue --reservation--> ready --> started by a worker --disposition--> done --settlement--> queue
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from ..queues.base import MessageQueue
from .events import Announcer
from .in_flight import InFlight
from .limits import Quota
from .policy import DELIVERED
from .report import Report
from .settling import Delivery

#: Messages that are reserved and not yet started, at most.
READY = 8
#: Seconds. A single worker settles each message before the next, unless the delivery took less than this.
FAST = 0.006
#: Seconds that the feed waits for a worker to finish a message before it checks the other conditions again.
TICK = 0.02
#: Seconds between two calls of the consumer's keep_alive().
KEEP_ALIVE = 5


class WorkerPool(Protocol):
    """The workers that deliver in threads; drain.WorkerPool."""

    @property
    def started(self) -> int:
        """Number of threads started."""

    def is_working(self) -> bool:
        """Return whether any thread is still running."""

    def start(self) -> None:
        """Start the first worker, or the others once a worker has connected."""


class Feed:
    """Hands out the messages of a queue, ``group`` at a time. Not thread-safe."""

    def __init__(
        self,
        queue: MessageQueue,
        lease: float,
        quota: Quota,
        report: Report,
        group: int,
        can_go_on: Callable[[], bool],
        announcer: Announcer,
    ) -> None:
        self.in_flight = InFlight(queue, lease, quota, report, can_go_on, announcer)
        #: Messages for workers in threads; None stops one of them.
        self.inbox = self.in_flight.offered
        #: Finished deliveries. An entry only wakes the feed; the disposition is an attribute of the delivery.
        self.outbox: SimpleQueue[Delivery] = SimpleQueue()
        self._quota = quota
        self._report = report
        self._group = group
        #: With several workers, messages that are reserved in addition to those being delivered.
        self._surplus = group if group > 1 else 0
        #: The feed asks the queue for more once there is room for this many messages.
        self._refill_at = (group + 1) // 2
        #: When the single worker's message was started, when keep_alive() was called last, and when the speed was
        #: measured last; on monotonic().
        self._started_at = self._kept_alive_at = self._measured_at = monotonic()
        #: Messages that were finished when the speed was measured last.
        self._finished = 0

    # one worker, in the calling thread

    def next(self) -> Delivery | None:
        """Settle the last message, and return the next one for the single worker; None ends the drain."""
        in_flight = self.in_flight
        failed = not self.outbox.empty() and self.outbox.get().disposition is not DELIVERED
        is_over = False
        if self._quota.rate:
            in_flight.exchange(0)
            is_over = not self._quota.wait()
        now = monotonic()
        is_over = is_over or self._quota.stop.asked or now >= self._quota.until
        if not in_flight.ready or failed or now - self._started_at > FAST:
            room = self._group - len(in_flight.ready)
            in_flight.exchange(0 if is_over or room < self._refill_at else room)
        if is_over or in_flight.is_over or not in_flight.ready:
            return None
        if in_flight.is_stale(in_flight.ready[0]):
            in_flight.extend_leases()
            if not in_flight.ready:
                return self.next()
        self._started_at = monotonic()
        if self._quota.rate:
            self._quota.begin()
        return in_flight.ready.popleft()

    # several workers, in threads

    def serve(self, pool: WorkerPool) -> None:
        """Keep the workers busy until no message is left to start, then stop them."""
        in_flight = self.in_flight
        stopped = idle = False
        while pool.is_working():
            unfinished = in_flight.count_unfinished()
            done = len(in_flight) - unfinished
            room = 0 if stopped or self._quota.is_over() else pool.started + self._surplus - unfinished
            if room >= self._refill_at or done >= self._refill_at or (done and idle):
                in_flight.exchange(room)
            if not stopped and (in_flight.is_over or self._quota.is_over() or not in_flight):
                stopped = True
                self.stop_workers(pool.started)
            if not stopped:
                self._offer()
                if self._is_delivery_slow(done) and not in_flight.must_run_dry():
                    pool.start()
            idle = self._wait()

    def report_done(self, delivery: Delivery) -> None:
        """Wake the feed if it has to act on a finished message. Called in the worker's thread."""
        if delivery.disposition is not DELIVERED or self.inbox.qsize() < self._refill_at:
            self.outbox.put(delivery)

    def stop_workers(self, count: int) -> None:
        """Take back the messages that no worker has started, and stop ``count`` workers. May be called again."""
        self.in_flight.take_back()
        for _ in range(count):
            self.inbox.put(None)

    def close(self) -> None:
        """Settle the finished messages, and put back the others. May be called again, even after an interrupt."""
        self.in_flight.close()

    def _is_delivery_slow(self, done: int) -> bool:
        """Return whether deliveries are slow enough for more workers to help.

        With a fast server on the same machine, more workers would only compete for its processor.
        """
        now, finished = monotonic(), self._report.tried + done
        if now - self._measured_at < TICK:
            return False
        is_slow = now - self._measured_at > FAST * (finished - self._finished)
        self._measured_at, self._finished = now, finished
        return is_slow

    def _offer(self) -> None:
        """Offer the ready messages to the workers; under a rate limit, only one that is due, and to an idle worker."""
        ready = self.in_flight.ready
        while ready and not (self._quota.rate and (self._quota.seconds_to_wait() or not self.inbox.empty())):
            self._quota.begin()
            self.inbox.put(ready.popleft())

    def _wait(self) -> bool:
        """Wait until a worker finishes a message; return True after TICK seconds without one."""
        self.in_flight.extend_leases()
        if monotonic() - self._kept_alive_at > KEEP_ALIVE:
            self._kept_alive_at = monotonic()
            self.in_flight.keep_alive()
        try:
            self.outbox.get(timeout=TICK)
        except Empty:
            return True
        try:
            while True:
                self.outbox.get_nowait()
        except Empty:
            return False
