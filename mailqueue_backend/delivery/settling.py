"""What the queue is told of a message in flight, and what is counted and logged of it."""

from __future__ import annotations

from dataclasses import dataclass

from ..envelope import id_of_unopened
from ..logs import get_logger
from ..queues.base import Reservation, Settlement
from .policy import Disposition
from .report import Report

logger = get_logger("delivery")


@dataclass(slots=True)
class Delivery:
    """One message in flight."""

    reservation: Reservation
    #: When its lease began, on monotonic().
    reserved_at: float
    #: A worker has taken it.
    begun: bool = False
    #: What the worker says of it.
    disposition: Disposition | None = None
    #: What the queue is told of it.
    settlement: Settlement | None = None
    #: Its name for people, once it is opened.
    id: str = ""


def settlement_of(delivery: Delivery, report: Report, dead_name: str) -> Settlement:
    """Return how a message is settled that was not delivered; count it, and log what nobody else has logged."""
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
        # A release would forget the deaths of a suspect.
        return Settlement(reservation, "leave" if reservation.deliveries > 1 else "release")
    name = id_of_unopened(reservation.payload)
    if what == "left":
        report.requeued += 1
        logger.warning("Message %s stays reserved until its lease ends: %s", name, reason)
        return Settlement(reservation, "leave")
    report.buried += 1
    size = len(reservation.payload)
    logger.error("Message %s, a payload of %d bytes, is set aside in %s: %s", name, size, dead_name, reason)
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
