"""The feed: hands messages to the workers of a drain, and settles what they are done with.

It is the calling thread, and the only one that talks to the queue::

    queue --reservation--> ready --> begun, by a worker --disposition--> done --settlement--> queue
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Protocol

from ..queues.base import MessageQueue
from .in_flight import InFlight
from .limits import Quota
from .policy import DELIVERED
from .report import Report
from .settling import Delivery

#: Messages that are reserved and not begun, at most.
READY = 8
#: With one worker, what is done is settled before the next message begins, unless that took less than so many seconds.
FAST = 0.006
#: Seconds between two looks at the workers when none of them is done with anything.
TICK = 0.02
#: Seconds between two signs of life to the queue's engine.
KEEP_ALIVE = 5


class Crew(Protocol):
    """The workers that deliver in threads of their own; drain.Crew."""

    @property
    def running(self) -> int:
        """How many have been started."""

    def is_working(self) -> bool:
        """Return whether one of them is still running."""

    def start(self) -> None:
        """Start as many as are worth it now, the first in any case."""


class Feed:
    """Hands out the messages of a queue, ``group`` at a time. For one thread."""

    def __init__(
        self, queue: MessageQueue, lease: float, quota: Quota, report: Report, group: int, can_go_on: Callable[[], bool]
    ) -> None:
        self.in_flight = InFlight(queue, lease, quota, report, can_go_on)
        #: Messages for workers in threads; None stops one of them.
        self.inbox = self.in_flight.offered
        #: What a worker is done with. It only wakes the feed: the disposition stands in the delivery.
        self.outbox: SimpleQueue[Delivery] = SimpleQueue()
        self._quota = quota
        self._report = report
        #: With several workers, messages that are reserved beyond those that they deliver.
        self._group, self._reserve = group, group if group > 1 else 0
        #: The queue is asked when there is room for so many.
        self._step = (group + 1) // 2
        self._began = self._alive_at = self._looked_at = monotonic()
        #: Messages that were done when the feed last looked whether they are slow.
        self._finished = 0

    # for one worker, in the calling thread

    def next(self) -> Delivery | None:
        """Settle the last message, and return the next one for the only worker; None: the drain is over."""
        in_flight = self.in_flight
        failed = not self.outbox.empty() and self.outbox.get().disposition is not DELIVERED
        is_over = False
        if self._quota.rate:
            in_flight.exchange(0)
            is_over = not self._quota.wait()
        now = monotonic()
        is_over = is_over or self._quota.stop.asked or now >= self._quota.until
        if not in_flight.ready or failed or now - self._began > FAST:
            room = self._group - len(in_flight.ready)
            in_flight.exchange(0 if is_over or room < self._step else room)
        if is_over or in_flight.over or not in_flight.ready:
            return None
        if in_flight.is_stale(in_flight.ready[0]):
            in_flight.extend_leases()
            if not in_flight.ready:
                return self.next()
        self._began = monotonic()
        if self._quota.rate:
            self._quota.begin()
        return in_flight.ready.popleft()

    # for workers in threads

    def serve(self, crew: Crew) -> None:
        """Keep the workers busy until nothing is left to begin, then stop them."""
        in_flight = self.in_flight
        dismissed = idle = False
        while crew.is_working():
            undone = in_flight.undone()
            done = len(in_flight) - undone
            room = 0 if dismissed or self._quota.is_over() else crew.running + self._reserve - undone
            if room >= self._step or done >= self._step or (done and idle):
                in_flight.exchange(room)
            if not dismissed and (in_flight.over or self._quota.is_over() or not in_flight):
                dismissed = True
                self.dismiss(crew.running)
            if not dismissed:
                self._offer()
                if self._is_slow(done) and not in_flight.must_run_dry():
                    crew.start()
            idle = self._wait()

    def note(self, delivery: Delivery) -> None:
        """Wake the feed, from the worker's thread, if it can do something about a message that is done."""
        if delivery.disposition is not DELIVERED or self.inbox.qsize() < self._step:
            self.outbox.put(delivery)

    def dismiss(self, workers: int) -> None:
        """Take back what no worker has begun, and stop so many of them. May be called again."""
        self.in_flight.take_back()
        for _ in range(workers):
            self.inbox.put(None)

    def close(self) -> None:
        """Settle what is done, and put back the rest. May be called again, after an interrupt or an error too."""
        self.in_flight.close()

    def _is_slow(self, done: int) -> bool:
        """Return whether messages take their time, so that others can be delivered meanwhile.

        With a server on this machine, workers would only wait for the same processor.
        """
        now, finished = monotonic(), self._report.tried + done
        if now - self._looked_at < TICK:
            return False
        slow = now - self._looked_at > FAST * (finished - self._finished)
        self._looked_at, self._finished = now, finished
        return slow

    def _offer(self) -> None:
        """Offer what is ready to the workers; with a rate, one when its turn has come and a worker is idle."""
        ready = self.in_flight.ready
        while ready and not (self._quota.rate and (self._quota.seconds_to_wait() or not self.inbox.empty())):
            self._quota.begin()
            self.inbox.put(ready.popleft())

    def _wait(self) -> bool:
        """Wait for a worker to be done with something; return whether none was."""
        self.in_flight.extend_leases()
        if monotonic() - self._alive_at > KEEP_ALIVE:
            self._alive_at = monotonic()
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
