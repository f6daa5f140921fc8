"""The messages in flight: reserved by this drain, and not settled yet.

A message is ready, then offered to the workers, then begun, then done. Only the feed's thread calls this module.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from ..errors import QueueUnavailable
from ..logs import get_logger
from ..queues.base import Exchange, MessageQueue, Settlement
from .limits import Quota
from .policy import DELIVERED, NOT_TRIED, RETURNED
from .report import Report
from .settling import Delivery, settlement_of, warn_of_lost_lease

logger = get_logger("delivery")

T = TypeVar("T")

#: The share of its lease that a message must still have before it is begun; otherwise the lease is renewed.
FRESH = 0.75
#: Seconds; a shorter lease may end during the exchange that reserves the message.
SHORTEST_LEASE = 1.0
#: Seconds that a suspect waits while the drain is busy. Then the drain runs dry, since suspects come alone.
SUSPECTS_WAIT = 60
#: Seconds after which an empty queue is asked again.
ASK_AGAIN = 1
#: Seconds between the tries of a step with the queue.
PAUSES = (0.1, 0.5, 2.0)


class InFlight:
    """Reserves messages, holds them, and settles them.

    ``can_go_on`` returns whether a mailer of this queue is not blocked.
    """

    def __init__(
        self, queue: MessageQueue, lease: float, quota: Quota, report: Report, can_go_on: Callable[[], bool]
    ) -> None:
        #: Reserved, and not offered to the workers.
        self.ready: deque[Delivery] = deque()
        #: Offered to the workers; None stops one of them.
        self.offered: SimpleQueue[Delivery | None] = SimpleQueue()
        #: Nothing more is reserved: no mailer can go on, or the queue is empty.
        self.over = False
        self._dead_name = queue.dead_name
        self._lease = lease
        self._quota = quota
        self._report = report
        self._can_go_on = can_go_on
        #: All of them, by receipt, oldest first.
        self._deliveries: dict[Any, Delivery] = {}
        self._ask_at = 0.0
        #: Since when a suspect waits; 0: none does.
        self._suspect_since = 0.0
        self._consumer = queue.consumer(lease)
        self.keep_alive = self._consumer.keep_alive

    def __len__(self) -> int:
        return len(self._deliveries)

    def undone(self) -> int:
        """Count those of which no worker has said what becomes of them."""
        return sum(1 for delivery in self._deliveries.values() if delivery.disposition is None)

    def exchange(self, wanted: int) -> None:
        """Settle all that are done, and reserve up to ``wanted`` more, in one round trip."""
        done = [one for one in list(self._deliveries.values()) if one.settlement or self._decide(one)]
        settlements = [one.settlement for one in done if one.settlement is not None]
        if self.over or monotonic() < self._ask_at or self.must_run_dry():
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
        dropped = self._drop_what_was_not_begun() if answer.lost else 0
        self._receive(answer, began)
        if answer.reservations:
            return
        if answer.lost and not self._quota.is_over():
            self.exchange(wanted + dropped)
        elif wanted and tries > 1:
            # A repeated exchange reserves nothing new, so its answer says nothing about the queue.
            self.exchange(wanted)
        elif wanted and not answer.suspect_waiting:
            self._ask_at = monotonic() + ASK_AGAIN
            self.over = self.over or not self._deliveries

    def must_run_dry(self) -> bool:
        """Return whether, for a suspect's sake, nothing may be reserved before everything in flight is settled."""
        wait_is_over = self._suspect_since and monotonic() - self._suspect_since > SUSPECTS_WAIT
        for delivery in self._deliveries.values():
            if delivery.settlement is None and (wait_is_over or delivery.reservation.deliveries > 1):
                return True
        return False

    def extend_leases(self) -> None:
        """Renew the leases of messages not begun that are no longer fresh; drop those that others may have by now."""
        now = monotonic()
        lost = max(self._lease, SHORTEST_LEASE)
        if any(not one.begun and now - one.reserved_at > lost for one in self._deliveries.values()):
            # This process was stopped for long.
            self._drop_what_was_not_begun()
        stale = now - (1 - FRESH) * self._lease
        waiting = [one for one in self._deliveries.values() if not one.begun and one.reserved_at < stale]
        if waiting:
            for one in waiting:
                one.reserved_at = monotonic()
            retry_while_unavailable(lambda: self._consumer.extend([one.reservation for one in waiting]))

    def is_stale(self, delivery: Delivery) -> bool:
        """Return whether a message has too little left of its lease to be begun."""
        return monotonic() - delivery.reserved_at > (1 - FRESH) * self._lease

    def take_back(self) -> None:
        """Make ready again what was offered and no worker has taken."""
        stops = 0
        try:
            while True:
                if (delivery := self.offered.get_nowait()) is not None:
                    self.ready.append(delivery)
                else:
                    stops += 1
        except Empty:
            for _ in range(stops):
                self.offered.put(None)

    def close(self) -> None:
        """Settle what is done, and put back the rest. May be called again, after an interrupt or an error too."""
        self.over = True
        self.exchange(0)
        retry_while_unavailable(self._consumer.close)
        self._deliveries.clear()

    def _must_be_settled(self, done: Sequence[Delivery]) -> bool:
        """Return whether there is time to settle a delivered message: a queue that restarts must cost no copy."""
        if self._quota.stop.forced_by is not None:
            return False
        until = [one.reserved_at + FRESH * self._lease for one in done if one.disposition is DELIVERED]
        return bool(until) and monotonic() < until[0]

    def _receive(self, answer: Exchange, began: float) -> None:
        for reservation in answer.reservations:
            delivery = self._deliveries[reservation.receipt] = Delivery(reservation, began)
            self.ready.append(delivery)
        self._quota.left -= len(answer.reservations)
        if not answer.suspect_waiting or not self._deliveries:
            self._suspect_since = 0.0
        elif not self._suspect_since:
            self._suspect_since = began

    def _decide(self, delivery: Delivery) -> bool:
        """Decide how a message is settled; return False if it is not settled now."""
        if delivery.disposition is None:
            return False
        if delivery.disposition is DELIVERED:
            self._report.sent += 1
            delivery.settlement = Settlement(delivery.reservation, "ack")
        elif delivery.disposition is RETURNED:
            delivery.begun, delivery.disposition = False, None
            self.take_back()
            self.ready.appendleft(delivery)
        elif delivery.disposition is NOT_TRIED and not self._can_go_on():
            self.over = True
        else:
            delivery.settlement = settlement_of(delivery, self._report, self._dead_name)
        return delivery.settlement is not None

    def _drop_what_was_not_begun(self) -> int:
        """Drop messages whose leases are lost: the queue hands them out again. Return how many."""
        self.take_back()
        dropped = len(self.ready)
        for delivery in self.ready:
            self._deliveries.pop(delivery.reservation.receipt, None)
        self.ready.clear()
        self._quota.left += dropped
        return dropped


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
