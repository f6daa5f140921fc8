"""A worker: take a message, have it delivered, settle it with the queue, until nothing is left to take.

Whatever goes wrong with one message is that message's failure: it is logged, the message goes back, and the
worker goes on.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from ..envelope import OURS, Envelope, loads
from ..errors import UnknownClass, Unreadable
from ..logs import get_logger
from ..queues.base import Reservation
from ..settings import conf
from .outcomes import Outcome, Report
from .quota import Quota
from .retrying import retry_delay
from .routes import Backend, Routes
from .settling import Settler

logger = get_logger("delivery")

#: So often a message is handed out without being settled, before it is taken to be what kills the drains.
HANDOUTS = 3


class Worker:
    """One thread of a drain, with a connection of its own to each mailer; ``alone``: the only one."""

    def __init__(self, routes: Routes, quota: Quota, report: Report, expired: datetime, alone: bool) -> None:
        self.routes = routes
        self.quota = quota
        #: A failed message that was created before is discarded.
        self.expired = expired
        self.lease = conf.MAIL_QUEUE_LEASE
        queue = routes.main.que
        self.settler = Settler(queue.without_expired() if routes.main.helping else queue, report, self.lease, alone)
        #: The message in hand was in the hand of a process that died.
        self.may_die = False

    def run(self, settled: Callable[[], None] | None = None) -> None:
        """Work until no message is left for this worker. Raises QueueUnavailable.

        ``settled`` is called after each message, while the server can be reached.
        """
        with self.routes, self.settler.at_work():
            reservation = self._reserve()
            while reservation is not None:
                reservation = self._process(reservation)
                if settled is not None and not self.routes.main.unreachable:
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
        """Deliver and settle one message, and take the next.

        When this is interrupted, it goes back, unless it was sent or discarded already.
        """
        self._way_out: Callable[[Reservation], object] = self.settler.queue.release
        settled = False
        try:
            following = self._open_and_deliver(reservation)
            settled = True
            return following
        finally:
            if not settled:
                self._way_out(reservation)

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
        """Have a message delivered, tell the queue what has become of it, and take the next."""
        route = self.routes.find(_alias(envelope))
        if route is None:
            backend, outcome = self.routes.main, self._strand(envelope, fields)
        else:
            backend, outcome = route.backend, route.deliver(envelope.email, self.expired, fields, self.lease / 2)
        if outcome.sent or not outcome.requeue:
            return self._finish(reservation, "sent" if outcome.sent else "discarded")
        if backend.leaving:
            # It was not really tried, and others may take it.
            self.settler.give_back(reservation)
            self.quota.put_back()
            return None
        return self._requeue(reservation, backend, envelope, fields)

    def _finish(self, reservation: Reservation, outcome: str) -> Reservation | None:
        """Take a message off the queue that was sent or discarded; take the next in the same round trip."""
        self._way_out = self.settler.queue.ack
        if self.quota.admit_at_once():
            return self._taken(self.settler.finish_and_reserve(reservation, outcome))
        self.settler.finish(reservation, outcome)
        return self._reserve()

    def _requeue(
        self, reservation: Reservation, backend: Backend, envelope: Envelope, fields: dict[str, Any]
    ) -> Reservation | None:
        """Put a message back that has failed. Without a connection it did not fail itself, and may be the last."""
        payload, delay = _renewed(backend, envelope, fields)
        envelope.email = None  # a big one is there in bytes already
        self.settler.requeue(reservation, payload, 0 if backend.unreachable else delay)
        return None if backend.unreachable and not self.routes.several else self._reserve()

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
        return backend._wrap(envelope.email, **fields), retry_delay(fields)
    except Exception:  # a site's hook may put anything into the fields
        logger.exception("A message cannot be stored again as the hook left it; it is requeued as it was.")
        return None, 0
