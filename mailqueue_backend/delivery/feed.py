"""The feed: owns every reservation of a drain, from the queue's hand-out to its settlement.

It is the calling thread, and the only one that talks to the queue. A message is ready, then begun, then done::

    queue --reservation--> ready --> begun, by a worker --disposition--> done --settlement--> queue

Wherever a drain ends, close() settles what is done and puts back what is not.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, Protocol, TypeVar

from ..errors import QueueUnavailable
from ..logs import get_logger
from ..queues.base import Exchange, MessageQueue, Settlement
from .limits import Quota
from .policy import DELIVERED, NOT_TRIED, RETURNED
from .report import Report
from .settling import Delivery, settlement_of, warn_of_lost_lease

logger = get_logger("delivery")

T = TypeVar("T")

#: Messages that are reserved and not begun, at most.
READY = 8
#: With one worker, what is done is settled before the next message begins, unless that took less than so many seconds.
FAST = 0.006
#: Of its lease, a message that is ready must have so much left, else the lease begins anew.
FRESH = 0.75
#: Seconds below which a lease that has ended cannot be told from an exchange that took long.
SHORTEST_LEASE = 1.0
#: Seconds for which a busy feed leaves suspects waiting; then it runs dry, since they come alone.
SUSPECTS_WAIT = 60
#: Seconds between two looks at the workers when none of them is done with anything.
TICK = 0.02
#: Seconds between two signs of life to the queue's engine, and after which an empty queue is asked again.
KEEP_ALIVE, ASK_AGAIN = 5, 1
#: Seconds between the tries of a step with the queue.
PAUSES = (0.1, 0.5, 2.0)


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
    """Hands out the messages of a queue to the workers of a drain, and settles them. For one thread.

    ``can_go_on`` answers whether a mailer of this queue is not blocked.
    """

    def __init__(
        self, queue: MessageQueue, lease: float, quota: Quota, report: Report, group: int, can_go_on: Callable[[], bool]
    ) -> None:
        #: Messages for workers in threads; None stops one of them.
        self.inbox: SimpleQueue[Delivery | None] = SimpleQueue()
        #: What a worker is done with. It only wakes the feed: the disposition stands in the delivery.
        self.outbox: SimpleQueue[Delivery] = SimpleQueue()
        #: Nothing more is asked for: nobody can go on, or the queue is empty.
        self.over = False
        self._dead_name = queue.dead_name
        self._lease = lease
        self._quota = quota
        self._report = report
        #: Messages that are reserved in one go; and with several workers, beyond those that they deliver.
        self._group, self._reserve = group, group if group > 1 else 0
        #: The queue is asked when there is room for so many.
        self._step = (group + 1) // 2
        self._can_go_on = can_go_on
        #: All messages in flight, by receipt, oldest first.
        self._deliveries: dict[Any, Delivery] = {}
        #: Those of them that no worker has been offered.
        self._ready: deque[Delivery] = deque()
        self._began = self._alive_at = self._looked_at = monotonic()
        #: Messages that were done when the feed last looked whether they are slow.
        self._finished = 0
        self._ask_at = 0.0
        #: Since when a suspect waits; 0: there is none.
        self._suspect_since = 0.0
        self._consumer = queue.consumer(lease)

    # for one worker, in the calling thread

    def next(self) -> Delivery | None:
        """Return the next message for the only worker, and settle the last one; None: the drain is over."""
        failed = not self.outbox.empty() and self.outbox.get().disposition is not DELIVERED
        is_over = False
        if self._quota.rate:
            self._exchange(0)
            is_over = not self._quota.wait()
        now = monotonic()
        is_over = is_over or self._quota.stop.asked or now >= self._quota.until
        if not self._ready or failed or now - self._began > FAST:
            room = self._group - len(self._ready)
            self._exchange(0 if is_over or room < self._step else room)
        if is_over or self.over or not self._ready:
            return None
        self._began = monotonic()
        if self._began - self._ready[0].reserved_at > (1 - FRESH) * self._lease:
            self._extend_leases()
            if not self._ready:
                return self.next()
        if self._quota.rate:
            self._quota.begin()
        return self._ready.popleft()

    # for workers in threads

    def serve(self, crew: Crew) -> None:
        """Keep the workers busy until nothing is left to begin, then stop them."""
        dismissed = idle = False
        while crew.is_working():
            undone = sum(1 for delivery in self._deliveries.values() if delivery.disposition is None)
            done = len(self._deliveries) - undone
            room = 0 if dismissed or self._quota.is_over() else crew.running + self._reserve - undone
            if room >= self._step or done >= self._step or (done and idle):
                self._exchange(room)
            if not dismissed and (self.over or self._quota.is_over() or not self._deliveries):
                dismissed = True
                self.dismiss(crew.running)
            if not dismissed:
                self._offer()
                if self._is_slow(done) and not self._must_run_dry():
                    crew.start()
            idle = self._wait()

    def note(self, delivery: Delivery) -> None:
        """Hear of a message that is done, in the worker's thread; wake the feed if it can do something about it."""
        if delivery.disposition is not DELIVERED or self.inbox.qsize() < self._step:
            self.outbox.put(delivery)

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

    def dismiss(self, workers: int) -> None:
        """Take back what no worker has begun, and stop so many of them. May be called again."""
        self._take_back()
        for _ in range(workers):
            self.inbox.put(None)

    def _offer(self) -> None:
        """Offer what is ready to the workers; with a rate, one when its turn has come and a worker is idle."""
        while self._ready and not (self._quota.rate and (self._quota.seconds_to_wait() or not self.inbox.empty())):
            self._quota.begin()
            self.inbox.put(self._ready.popleft())

    def _wait(self) -> bool:
        """Wait for a worker to be done with something; return whether none was."""
        self._extend_leases()
        if monotonic() - self._alive_at > KEEP_ALIVE:
            self._alive_at = monotonic()
            self._consumer.keep_alive()
        try:
            self.outbox.get(timeout=TICK)
        except Empty:
            return True
        try:
            while True:
                self.outbox.get_nowait()
        except Empty:
            return False

    def _take_back(self) -> None:
        """Return unclaimed deliveries from the inbox to what is ready; keep the sentinels."""
        dismissed = 0
        try:
            while True:
                if (delivery := self.inbox.get_nowait()) is not None:
                    self._ready.append(delivery)
                else:
                    dismissed += 1
        except Empty:
            for _ in range(dismissed):
                self.inbox.put(None)

    # the queue

    def close(self) -> None:
        """Settle what is done, and put back the rest. May be called again, after an interrupt or an error too."""
        self.over = True
        self._exchange(0)
        retry_while_unavailable(self._consumer.close)
        self._deliveries.clear()

    def _exchange(self, wanted: int) -> None:
        """Settle all that is done and reserve what is wanted, in one round trip."""
        done = [one for one in list(self._deliveries.values()) if one.settlement or self._decide(one)]
        settlements = [one.settlement for one in done if one.settlement is not None]
        if self.over or monotonic() < self._ask_at or self._must_run_dry():
            wanted = 0
        wanted = max(min(wanted, self._quota.left), 0)
        if not done and not wanted:
            return
        began, tries = monotonic(), 0

        def exchange() -> Exchange:
            nonlocal tries
            tries += 1
            return self._consumer.exchange(settlements, wanted)

        answer = retry_while_unavailable(exchange, partial(self._must_be_settled, done))
        for delivery, settled in zip(done, answer.settled, strict=True):
            del self._deliveries[delivery.reservation.receipt]
            if not settled:
                warn_of_lost_lease(delivery, self._lease)
        self._receive(answer, began)
        if answer.reservations:
            return
        if answer.lost and not self._quota.is_over():
            self._exchange(self._group)
        elif wanted and tries > 1:
            # A repeated exchange reserves nothing new, so its answer says nothing about the queue.
            self._exchange(wanted)
        elif wanted and not answer.suspect_waiting:
            self._ask_at = monotonic() + ASK_AGAIN
            self.over = self.over or not self._deliveries

    def _must_be_settled(self, done: Sequence[Delivery]) -> bool:
        """Return whether it is not too late to settle a delivered message: a queue that restarts must cost no copy."""
        if self._quota.stop.forced_by is not None:
            return False
        until = [one.reserved_at + FRESH * self._lease for one in done if one.disposition is DELIVERED]
        return bool(until) and monotonic() < until[0]

    def _receive(self, answer: Exchange, began: float) -> None:
        """Take over what an exchange has reserved, and note whether a suspect waits."""
        if answer.lost:
            self._forget_what_was_not_begun()
        for reservation in answer.reservations:
            delivery = self._deliveries[reservation.receipt] = Delivery(reservation, began)
            self._ready.append(delivery)
        self._quota.left -= len(answer.reservations)
        if not answer.suspect_waiting or not self._deliveries:
            self._suspect_since = 0.0
        elif not self._suspect_since:
            self._suspect_since = began

    def _decide(self, delivery: Delivery) -> bool:
        """Decide what the queue is told of a message; return False where it is not told now."""
        if delivery.disposition is None:
            return False
        if delivery.disposition is DELIVERED:
            self._report.sent += 1
            delivery.settlement = Settlement(delivery.reservation, "ack")
        elif delivery.disposition is RETURNED:
            delivery.begun, delivery.disposition = False, None
            self._take_back()
            self._ready.appendleft(delivery)
        elif delivery.disposition is NOT_TRIED and not self._can_go_on():
            self.over = True
        else:
            delivery.settlement = settlement_of(delivery, self._report, self._dead_name)
        return delivery.settlement is not None

    def _forget_what_was_not_begun(self) -> None:
        """Drop what was not begun: its leases are lost, and it will be handed out again."""
        self._take_back()
        for delivery in self._ready:
            self._deliveries.pop(delivery.reservation.receipt, None)
            self._quota.left += 1
        self._ready.clear()

    def _must_run_dry(self) -> bool:
        """Return whether nothing more may be reserved before all that is reserved is settled: for a suspect's sake."""
        wait_is_over = self._suspect_since and monotonic() - self._suspect_since > SUSPECTS_WAIT
        for delivery in self._deliveries.values():
            if delivery.settlement is None and (wait_is_over or delivery.reservation.deliveries > 1):
                return True
        return False

    def _extend_leases(self) -> None:
        """Renew the leases of what is ready where too little is left of them; drop what may be another drain's."""
        now = monotonic()
        lost = max(self._lease, SHORTEST_LEASE)
        if any(not one.begun and now - one.reserved_at > lost for one in self._deliveries.values()):
            # This process was stopped for long.
            self._forget_what_was_not_begun()
        stale = now - (1 - FRESH) * self._lease
        ready = [one for one in self._deliveries.values() if not one.begun and one.reserved_at < stale]
        if ready:
            for one in ready:
                one.reserved_at = monotonic()
            retry_while_unavailable(lambda: self._consumer.extend([one.reservation for one in ready]))


def retry_while_unavailable(step: Callable[[], T], keep_on: Callable[[], bool] = lambda: False) -> T:
    """Take a step with the queue, again for a while when it is unavailable, and for as long as ``keep_on`` says so."""
    pauses = iter(PAUSES)
    while True:
        try:
            return step()
        except QueueUnavailable as error:
            pause = next(pauses, PAUSES[-1] if keep_on() else None)
            if pause is None:
                raise
            logger.warning("The queue is unavailable, trying again in %s s: %s", pause, error)
        time.sleep(pause)
