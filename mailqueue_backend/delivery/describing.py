"""Describe what became of one message, as an Event."""

from __future__ import annotations

import time
from typing import Any

from ..envelope import Envelope, Meta, id_of_unopened
from ..envelope.identity import own_headers
from ..errors import interrupts
from ..logs import get_logger
from ..signals import message_buried, message_discarded, message_requeued, message_sent
from .addressing import recipients_of
from .events import Event
from .mailer import Mailer
from .policy import Attempt, Disposition
from .report import Outcome
from .session import Session
from .settling import Delivery
from .verdict import Reply
from .words import decode_reply

logger = get_logger("delivery")


def describe(
    session: Session | None, main: Mailer, message: Any, envelope: Envelope, outcome: Outcome, seconds: float
) -> Event | None:
    """Return the event of a message that was tried; None if what a hook has left of it cannot be described.

    ``session`` is None if its mailer does not exist; ``main`` is the mailer whose queue is drained.
    """
    try:
        return _describe(session, main, message, envelope, outcome, seconds)
    except interrupts():
        raise
    except Exception:  # a hook may leave anything in a message, and raise any exception
        logger.exception("Message %s: what became of it cannot be described.", envelope.meta.id)
        return None


def describe_buried(main: Mailer, delivery: Delivery, disposition: Disposition) -> Event:
    """Return the event of a message that is moved to the dead queue."""
    return Event(
        status="buried",
        signal=message_buried,
        sender=type(main.backend),
        queue=main.backend.queue_name,
        id=delivery.id or id_of_unopened(delivery.reservation.payload),
        error=disposition.reason,
    )


def _describe(
    session: Session | None, main: Mailer, message: Any, envelope: Envelope, outcome: Outcome, seconds: float
) -> Event:
    meta, mailer = envelope.meta, main if session is None else session.mailer
    attempt = Attempt(error=meta.last_error or None)
    everyone: list[str] = []
    if session is not None and session.attempt is not None:
        attempt = session.attempt
        everyone = [*attempt.recipients] or session.recipients()
    return Event(
        sender=type(mailer.backend),
        queue=main.backend.queue_name,
        id=meta.id,
        mailer=meta.using or mailer.alias,
        message=message,
        message_id=str(own_headers(message).get("message-id", "")),
        attempts=meta.attempts + attempt.is_delivered,
        reply=_reply_to(attempt, None if session is None else session.transcript.reply),
        age=time.time() - meta.epoch(envelope.created),
        seconds=seconds,
        relay=mailer.relay,
        **_result(outcome, attempt, message, everyone or recipients_of(message), meta),
    )


def _result(outcome: Outcome, attempt: Attempt, message: Any, everyone: list[str], meta: Meta) -> dict[str, Any]:
    """Return the fields of an event that say for whom a message was accepted; ``everyone``: all whom it was for."""
    remaining = [] if not outcome.requeue else everyone if meta.remaining is None else list(meta.remaining)
    recipients = list(attempt.accepted) or (everyone if outcome.sent else [])
    reasons = attempt.reasons(message)
    reason_of = {name: reason for reason, names in reasons.items() for name in names}
    error = "; ".join(reasons)
    given_up = [name for name in everyone if name not in recipients and name not in remaining]
    if outcome.requeue:
        status, signal = "partly" if recipients else "requeued", message_requeued
    elif outcome.sent:
        status, signal = "partly" if given_up else "sent", message_sent
    else:
        status, signal = "discarded", message_discarded
    return {
        "status": status,
        "signal": signal,
        "recipients": recipients,
        "refused": {name: reason_of.get(name, error) for name in given_up},
        "remaining": remaining,
        "reasons": {name: reason_of.get(name, error) for name in remaining},
        "error": error,
    }


def _reply_to(attempt: Attempt, accepted: tuple[int, bytes] | None) -> str:
    """Return the server's last reply: the one that accepted the message, or else one that refused it; "": none."""
    if accepted is not None:
        return str(Reply("dot", *decode_reply(accepted)))
    refusals = [refusal.reply for refusal in attempt.refused]
    reply = next((reply for reply in (attempt.reply, attempt.doubt, *refusals) if reply is not None), None)
    return "" if reply is None else str(reply)
