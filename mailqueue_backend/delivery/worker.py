"""A worker: take a message, have it delivered, settle it with the queue, until nothing is left to take.

Whatever goes wrong with one message is that message's failure: it is logged, the message goes back, and the
worker goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..envelope import OURS, Envelope, created_epoch, loads
from ..errors import UnknownClass, Unreadable
from ..logs import get_logger
from ..queues.base import Reservation
from ..settings import conf
from .outcomes import Outcome, Report
from .quota import Quota
from .routes import Backend, Routes
from .settling import Settler

logger = get_logger("delivery")

#: So often a message is handed out without being settled, before it is taken to be what kills the drains.
HANDOUTS = 3
#: However long a message keeps failing, it is tried once in so many seconds.
LONGEST_DELAY = 3600


class Worker:
    """One thread of a drain, with a connection of its own to each mailer."""

    def __init__(self, routes: Routes, quota: Quota, report: Report, expired: datetime) -> None:
        self.routes = routes
        self.quota = quota
        #: A failed message that was created before is discarded.
        self.expired = expired
        self.lease = conf.MAIL_QUEUE_LEASE
        queue = routes.main.que
        self.settler = Settler(queue.without_expired() if routes.main.helping else queue, report, self.lease)
        #: The message in hand was in the hand of a process that died.
        self.may_die = False

    def run(self, settled: Callable[[], None] | None = None) -> None:
        """Work until no message is left for this worker; call ``settled`` after each. Raises QueueUnavailable."""
        with self.routes:
            reservation = self._reserve()
            while reservation is not None:
                reservation = self._process(reservation)
                if settled is not None:
                    settled()

    def _reserve(self) -> Reservation | None:
        return self._taken(self.settler.reserve()) if self.quota.admit() else None

    def _taken(self, reservation: Reservation | None) -> Reservation | None:
        """Note what is in hand now; nothing: another worker may find something."""
        self.may_die = reservation is not None and reservation.deliveries > 1
        if reservation is None:
            self.quota.put_back()
        return reservation

    def _process(self, reservation: Reservation) -> Reservation | None:
        """Deliver and settle one message, and take the next; put it back when this is interrupted."""
        settled = False
        try:
            following = self._open_and_deliver(reservation)
            settled = True
            return following
        finally:
            if not settled:
                self.settler.give_back(reservation)

    def _open_and_deliver(self, reservation: Reservation) -> Reservation | None:
        try:
            if reservation.deliveries > HANDOUTS:
                raise Unreadable(f"it was in hand in {HANDOUTS} processes that died")
            envelope = loads(reservation.payload)
        except UnknownClass as error:
            self.settler.leave(reservation, error)
            return self._reserve()
        except Unreadable as error:
            self.settler.bury(reservation, str(error))
            return self._reserve()
        return self._deliver(reservation, envelope, {"created": envelope.created, **envelope.extra})

    def _deliver(self, reservation: Reservation, envelope: Envelope, fields: dict[str, Any]) -> Reservation | None:
        route = self.routes.find(_alias(envelope))
        if route is None:
            return self._settle(reservation, self.routes.main, envelope, fields, self._strand(envelope, fields))
        outcome = route.deliver(envelope.email, self.expired, fields, self.lease / 2)
        backend = route.backend
        if backend.unreachable and backend.helping:
            # A further connection is more than the server takes: leave the work to those who have one.
            self.settler.give_back(reservation)
            return None
        return self._settle(reservation, backend, envelope, fields, outcome)

    def _settle(
        self,
        reservation: Reservation,
        backend: Backend,
        envelope: Envelope,
        fields: dict[str, Any],
        outcome: Outcome,
    ) -> Reservation | None:
        """Tell the queue what has become of a message, and take the next."""
        if outcome.sent or not outcome.requeue:
            return self._finish(reservation, "sent" if outcome.sent else "discarded")
        self.settler.requeue(reservation, *_renewed(backend, envelope, fields))
        # Nobody else is to be reached: the drain ends.
        ended = backend.unreachable and not self.routes.several
        return None if ended else self._reserve()

    def _finish(self, reservation: Reservation, outcome: str) -> Reservation | None:
        if self.quota.admit_at_once():
            return self._taken(self.settler.finish_and_reserve(reservation, outcome))
        self.settler.finish(reservation, outcome)
        return self._reserve()

    def _strand(self, envelope: Envelope, fields: dict[str, Any]) -> Outcome:
        """Let a message wait whose mailer is not there; no other is to send it by guess."""
        alias = _alias(envelope)
        error = f"{alias!r}, by which it was sent, is not a mailer that queues its mail"
        if alias is None:
            error = "it does not say by which mailer it was sent, and 'default' does not queue here"
        logger.warning("A message waits until it expires: %s", error)
        return self.routes.main._failed(envelope.email, self.expired, fields, error)


def _alias(envelope: Envelope) -> str | None:
    """Name the mailer by which a message was sent; None when that is not known."""
    ours = envelope.extra.get(OURS)
    using = ours.get("using") if isinstance(ours, dict) else None
    return using if isinstance(using, str) else None


def _renewed(backend: Backend, envelope: Envelope, fields: dict[str, Any]) -> tuple[bytes | None, float]:
    """Serialise with what the hook left in the fields, and say in how many seconds to try again.

    (None, 0), for the bytes as they were, when that fails.
    """
    try:
        return backend._wrap(envelope.email, **fields), _delay(fields)
    except Exception:  # a site's hook may put anything into the fields
        logger.exception("A message cannot be stored again as the hook left it; it is requeued as it was.")
        return None, 0


def _delay(fields: dict[str, Any]) -> float:
    """As long as the message is old, between MAIL_QUEUE_RETRY_DELAY and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    age = time.time() - created_epoch(fields["created"], fields)
    return min(max(shortest, age), max(shortest, LONGEST_DELAY))
