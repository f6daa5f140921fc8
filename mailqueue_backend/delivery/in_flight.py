"""The messages in flight: reserved by this drain, and not settled yet.

A message is ready, then offered to the workers, then started, then done. Only the feed's thread calls this module.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from time import monotonic
from typing import Any, TypeVar

from ..errors import PayloadRefused, QueueUnavailable
from ..logs import get_logger
from ..queues.base import Exchange, MessageQueue, Settlement
from ..queues.paused import paused_reason
from . import untold
from .deadlines import DOT_SECONDS
from .events import Announcer
from .limits import Quota
from .policy import DELIVERED, NOT_TRIED, RETURNED
from .report import Report
from .settling import Delivery, leave_if_refused_again, settlement_of, warn_of_lost_lease

logger = get_logger("delivery")

T = TypeVar("T")

#: The fraction of the lease that must remain when a message is started; otherwise the lease is renewed first.
FRESH = 0.75
#: Leases for which the settlement of a delivered message is retried. After its lease, it still succeeds unless another
#: consumer has reserved the message; while the queue is unavailable, none can.
SETTLE_WITHIN = 3
#: Seconds before which no message is dropped: a shorter lease may end during the exchange that reserves the message.
SHORTEST_LEASE = 1.0
#: Seconds that a suspect may wait in the queue while the drain is busy. After that, the drain settles all its messages
#: before it reserves more, since the queue hands out a suspect only to a consumer without reservations.
SUSPECTS_WAIT = 60
#: Seconds between two checks whether the queue is paused.
PAUSE_INTERVAL = 5
#: Seconds before the drain asks an empty queue again.
ASK_AGAIN = 1
#: Seconds to wait before each retry of a queue operation.
PAUSES = (0.1, 0.5, 2.0)


class InFlight:
    """Reserves messages, keeps track of them, and settles them.

    ``can_go_on`` returns whether at least one mailer of this queue can still deliver.
    """

    def __init__(
        self,
        queue: MessageQueue,
        lease: float,
        quota: Quota,
        report: Report,
        can_go_on: Callable[[], bool],
        announcer: Announcer,
    ) -> None:
        #: Reserved, and not yet offered to the workers.
        self.ready: deque[Delivery] = deque()
        #: Offered to the workers; each None stops one worker.
        self.offered: SimpleQueue[Delivery | None] = SimpleQueue()
        #: Whether to stop reserving, because no mailer can deliver or the queue is empty.
        self.is_over = False
        self._queue = queue
        self._lease = lease
        self._quota = quota
        self._report = report
        self._can_go_on = can_go_on
        self._announcer = announcer
        #: All messages in flight, by receipt, oldest first.
        self._deliveries: dict[Any, Delivery] = {}
        #: When an empty queue may be asked again, on monotonic().
        self._ask_again_at = 0.0
        #: When to check next whether the queue is paused, on monotonic().
        self._check_pause_at = 0.0
        #: When a suspect began to wait, on monotonic(); 0: no suspect waits.
        self._suspect_since = 0.0
        self._consumer = queue.consumer(lease)
        self.keep_alive = self._consumer.keep_alive

    def __len__(self) -> int:
        return len(self._deliveries)

    def count_unfinished(self) -> int:
        """Return the number of messages that have no disposition yet."""
        return sum(1 for delivery in self._deliveries.values() if delivery.disposition is None)

    def exchange(self, wanted: int) -> None:
        """Settle all finished messages, and reserve up to ``wanted`` more; in one round trip, as a rule."""
        pauses = iter(PAUSES)
        more: int | None = wanted
        while more is not None:
            more = self._exchange_once(more, pauses)

    def _exchange_once(self, wanted: int, pauses: Iterator[float]) -> int | None:
        """Settle and reserve; return how many to reserve in another exchange, or None if none is needed."""
        done = [each for each in list(self._deliveries.values()) if each.settlement or self._decide(each)]
        self._announce(done)
        wanted = self._allowed(wanted)
        if not done and not wanted:
            return None
        began = monotonic()
        answer, tries = self._ask(done, wanted, pauses)
        for delivery, settled in zip(done, answer.settled, strict=True):
            self._remove(delivery, settled)
        dropped = self._drop_unstarted() if answer.lost else 0
        self._receive(answer, began)
        if answer.reservations:
            has_only_settled = not self.ready and any(each.settlement for each in self._deliveries.values())
            return wanted if has_only_settled else None  # an earlier drain of this process has finished all of them
        if answer.lost and not self._quota.is_over():
            return wanted + dropped
        if wanted and tries > 1:
            return wanted  # a repeated exchange reserves nothing new: the queue need not be empty
        if wanted and not answer.suspect_waiting:
            self._ask_again_at = monotonic() + ASK_AGAIN
            self.is_over = self.is_over or not self._deliveries
        return None

    def _allowed(self, wanted: int) -> int:
        """Return how many messages may be reserved now."""
        if wanted and monotonic() >= self._check_pause_at:
            self._check_pause()
        if self.is_over or monotonic() < self._ask_again_at or self.must_run_dry():
            return 0
        return max(min(wanted, self._quota.left), 0)

    def _check_pause(self) -> None:
        """Stop reserving if the queue is paused, and record the reason."""
        with suppress(QueueUnavailable):  # the next exchange reports it, if it lasts
            self._report.paused = paused_reason(self._queue)
            self._check_pause_at = monotonic() + PAUSE_INTERVAL
            self.is_over = self.is_over or self._report.paused is not None

    def _ask(self, done: Sequence[Delivery], wanted: int, pauses: Iterator[float]) -> tuple[Exchange, int]:
        """Exchange with the queue, and return its answer and the number of tries."""
        tries = 0

        def exchange() -> Exchange:
            nonlocal tries
            tries += 1
            settlements = [each.settlement for each in done if each.settlement is not None]
            try:
                return self._consumer.exchange(settlements, wanted)
            except PayloadRefused as error:
                # So that the others are settled, and do not wait for this one.
                leave_if_refused_again(self._deliveries[error.receipt], error)
                return exchange()

        return retry_while_unavailable(exchange, partial(self._has_time_to_settle, done), pauses), tries

    def _remove(self, delivery: Delivery, settled: bool) -> None:
        """Forget a message that is settled, or whose lease was lost."""
        del self._deliveries[delivery.reservation.receipt]
        if not settled:
            warn_of_lost_lease(delivery, self._lease)
        elif delivery.settlement is not None and delivery.settlement.how != "leave":
            untold.forget(self._queue, delivery)

    def _announce(self, done: Sequence[Delivery]) -> None:
        """Announce what became of messages, before the queue is told: a kill or an interrupt repeats events."""
        announced = [delivery for delivery in done if delivery.event is not None]
        for delivery in announced:
            assert delivery.event is not None
            self._announcer.announce(delivery.event)
            self._renew([each for each in self._deliveries.values() if self.is_stale(each)])
        self._announcer.announce_group([delivery.event for delivery in announced if delivery.event is not None])
        for delivery in announced:
            delivery.event = None

    def must_run_dry(self) -> bool:
        """Return whether to settle all before reserving more: a suspect is in flight or has waited too long."""
        has_waited = self._suspect_since and monotonic() - self._suspect_since > SUSPECTS_WAIT
        for delivery in self._deliveries.values():
            if delivery.settlement is None and (has_waited or delivery.reservation.deliveries > 1):
                return True
        return False

    def extend_leases(self) -> None:
        """Renew the stale leases of messages that are not started, or that are at the final dot.

        Drop messages that are not started and whose leases may have ended.
        """
        now = monotonic()
        longest = max(self._lease, SHORTEST_LEASE)
        if any(not each.is_started and now - each.reserved_at > longest for each in self._deliveries.values()):
            # This process was suspended for a long time.
            self._drop_unstarted()
        waiting = [each for each in self._deliveries.values() if each.is_at_dot or not each.is_started]
        self._renew([each for each in waiting if self.is_stale(each)])

    def _renew(self, deliveries: Sequence[Delivery]) -> None:
        """Renew the leases of messages."""
        if deliveries:
            for delivery in deliveries:
                delivery.reserved_at = monotonic()
            retry_while_unavailable(lambda: self._consumer.extend([each.reservation for each in deliveries]))

    def extend_for_dot(self, delivery: Delivery) -> float:
        """Renew the lease of a message, if it is stale, before the final dot is sent.

        Return the seconds that the server has to reply. Only for a worker in the feed's thread.
        """
        if self.is_stale(delivery):
            with suppress(QueueUnavailable):
                renewed_at = monotonic()
                self._consumer.extend([delivery.reservation])
                delivery.reserved_at = renewed_at
        return min(DOT_SECONDS, delivery.reserved_at + self._lease - monotonic())

    def is_stale(self, delivery: Delivery) -> bool:
        """Return whether less than FRESH of a message's lease remains."""
        return monotonic() - delivery.reserved_at > (1 - FRESH) * self._lease

    def take_back(self) -> None:
        """Move the offered messages that no worker has taken back to ``ready``."""
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
        """Settle the finished messages, and return the others. May be called again, even after an interrupt."""
        self.is_over = True
        try:
            self.exchange(0)
            retry_while_unavailable(self._consumer.close)
        except QueueUnavailable:
            untold.remember(self._queue, self._deliveries.values())
            raise
        self._deliveries.clear()

    def _has_time_to_settle(self, done: Sequence[Delivery]) -> bool:
        """Return whether to keep trying to settle, so that a delivered message is not sent twice."""
        if self._quota.stop.forced_by is not None:
            return False
        latest = [each.reserved_at + SETTLE_WITHIN * self._lease for each in done if each.disposition is DELIVERED]
        return bool(latest) and monotonic() < latest[0]

    def _receive(self, answer: Exchange, began: float) -> None:
        for reservation in answer.reservations:
            delivery = self._deliveries[reservation.receipt] = Delivery(reservation, began)
            untold.recall(self._queue, delivery)
            if delivery.settlement is None:
                self.ready.append(delivery)
        self._quota.left -= len(answer.reservations)
        if not answer.suspect_waiting or not self._deliveries:
            self._suspect_since = 0.0
        elif not self._suspect_since:
            self._suspect_since = began

    def _decide(self, delivery: Delivery) -> bool:
        """Set the settlement of a finished message; return False if it must not be settled now."""
        if delivery.disposition is None:
            return False
        if delivery.disposition is DELIVERED:
            self._report.sent += 1
            delivery.settlement = Settlement(delivery.reservation, "ack")
        elif delivery.disposition is RETURNED:
            delivery.is_started, delivery.disposition = False, None
            self.take_back()
            self.ready.appendleft(delivery)
        elif delivery.disposition is NOT_TRIED and not self._can_go_on():
            self.is_over = True
        else:
            delivery.settlement = settlement_of(delivery, self._report, self._queue)
        return delivery.settlement is not None

    def _drop_unstarted(self) -> int:
        """Drop the messages that are not started, and return how many; the queue hands them out again."""
        self.take_back()
        dropped = len(self.ready)
        for delivery in self.ready:
            self._deliveries.pop(delivery.reservation.receipt, None)
        self.ready.clear()
        self._quota.left += dropped
        return dropped


def retry_while_unavailable(
    operation: Callable[[], T], keep_trying: Callable[[], bool] = lambda: False, pauses: Iterator[float] | None = None
) -> T:
    """Return the result of a queue operation. While the queue is unavailable, retry it after each of PAUSES.

    After the last one, retry while ``keep_trying()`` returns True, then raise QueueUnavailable.
    """
    pauses = iter(PAUSES) if pauses is None else pauses
    while True:
        try:
            return operation()
        except QueueUnavailable as error:
            pause = next(pauses, PAUSES[-1] if keep_trying() else None)
            if pause is None:
                raise
            logger.info("The queue is unavailable, trying again in %s s: %s", pause, error)
        time.sleep(pause)
