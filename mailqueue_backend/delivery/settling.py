"""One message in flight, and its settlement: how it leaves the drain, and what is counted and logged."""

from __future__ import annotations

from dataclasses import dataclass

from ..envelope import id_of_unopened
from ..logs import get_logger
from ..queues.base import Reservation, Settlement
from .events import Event
from .policy import Disposition
from .report import Report

logger = get_logger("delivery")


@dataclass(slots=True)
class Delivery:
    """One message in flight."""

    reservation: Reservation
    #: When its lease began, on monotonic().
    reserved_at: float
    #: Whether a worker has taken it.
    is_started: bool = False
    #: Whether the server may take ten minutes to answer, so that the feed has to renew the lease.
    is_at_dot: bool = False
    #: The worker's decision; None: not finished.
    disposition: Disposition | None = None
    #: How the queue is to settle it; None: not decided.
    settlement: Settlement | None = None
    #: How often it was handed out to this process, which could not settle it and is still alive.
    survived: int = 0
    #: To be announced before the queue is told; None: nothing, or announced already.
    event: Event | None = None
    #: Meta.id, once the payload has been opened.
    id: str = ""


def settlement_of(delivery: Delivery, report: Report, dead_name: str) -> Settlement:
    """Return the settlement of a message that was not delivered. Count it, and log it if it is left or buried."""
    assert delivery.disposition is not None
    what, payload, delay, reason = delivery.disposition
    reservation = delivery.reservation
    if what == "discarded":
        report.discarded += 1
        return Settlement(reservation, "ack")
    if what == "requeued":
        report.requeued += 1
        return Settlement(reservation, "release", payload, delay)
    if what == "not tried":
        # A release would reset the delivery count that marks a suspect.
        return Settlement(reservation, "leave" if reservation.deliveries > 1 else "release")
    message_id = id_of_unopened(reservation.payload)
    if what == "left":
        report.requeued += 1
        logger.warning("Message %s stays reserved until its lease ends: %s", message_id, reason)
        return Settlement(reservation, "leave")
    report.buried += 1
    size = len(reservation.payload)
    logger.error("Message %s, a payload of %d bytes, is set aside in %s: %s", message_id, size, dead_name, reason)
    return Settlement(reservation, "bury")


def warn_of_lost_lease(delivery: Delivery, lease: float) -> None:
    """Log that a message was settled too late."""
    assert delivery.disposition is not None
    logger.warning(
        "Message %s was %s after its lease of %s s had ended, or the queue's answer was lost: "
        "another drain may handle it as well.",
        delivery.id or id_of_unopened(delivery.reservation.payload),
        delivery.disposition.what,
        lease,
    )
