"""One message in flight, and its settlement: how it leaves the drain, and what is counted and logged."""

from __future__ import annotations

from dataclasses import dataclass

from ..envelope import id_of_unopened
from ..errors import PayloadRefused, QueueUnavailable
from ..logs import get_logger
from ..queues.base import MessageQueue, Reservation, Settlement
from .events import Event
from .policy import Disposition
from .report import Report

logger = get_logger("delivery")

_LEFT = "Message %s stays reserved until its lease ends: %s"


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
    #: Whether the queue has refused its new payload before.
    was_refused: bool = False
    #: Meta.id, once the payload has been opened.
    id: str = ""


def settlement_of(delivery: Delivery, report: Report, queue: MessageQueue) -> Settlement:
    """Return the settlement of a message that was not delivered. Count it, and log it if it is left or buried."""
    assert delivery.disposition is not None
    what, payload, delay, reason = delivery.disposition
    if what == "requeued" and payload and (problem := _explain_size(queue, payload)):
        what, reason = "left", f"it cannot be stored again: {problem}"
    reservation = delivery.reservation
    if what == "discarded":
        report.discarded += 1
        return Settlement(reservation, "ack")
    if what == "requeued":
        report.requeued += 1
        return Settlement(reservation, "release", payload, delay)
    if what == "not tried":
        # It resets the count of a suspect: to leave one to its lease would raise it, and bury the message untried.
        return Settlement(reservation, "release")
    message_id = id_of_unopened(reservation.payload)
    if what == "left":
        report.requeued += 1
        logger.warning(_LEFT, message_id, reason)
        return Settlement(reservation, "leave")
    report.buried += 1
    size = len(reservation.payload)
    logger.error("Message %s, a payload of %d bytes, is set aside in %s: %s", message_id, size, queue.dead_name, reason)
    return Settlement(reservation, "bury")


def leave_if_refused_again(delivery: Delivery, error: PayloadRefused) -> None:
    """Leave a released message to its lease when the queue refuses its payload for the second time.

    The first time, the connection may just have been lost.
    """
    if delivery.was_refused:
        logger.warning(_LEFT, delivery.id, f"it cannot be stored again: {error}")
        delivery.settlement = Settlement(delivery.reservation, "leave")
    delivery.was_refused = True


def _explain_size(queue: MessageQueue, payload: bytes) -> str:
    try:
        return queue.explain_size(payload)
    except QueueUnavailable:
        return ""  # the exchange will raise the error, or refuse the payload


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
