"""How a message that failed, or whose delivery was interrupted, goes back to the queue."""

from __future__ import annotations

from typing import Any

from ..envelope import Envelope, Meta, dumps, loads
from ..errors import interrupts
from ..logs import get_logger
from .addressing import names_of
from .mailer import Mailer
from .policy import DELIVERED, DISCARDED, Disposition, bury, retry, retry_delay
from .session import Session

logger = get_logger("delivery")


def requeue(
    session: Session | None, main: Mailer, envelope: Envelope, fields: dict[str, Any], payload: bytes
) -> Disposition:
    """Requeue a failed message as it was stored, or as a site's hook left it, with updated Meta."""
    meta = envelope.meta
    try:
        fields.setdefault("created", envelope.created)
        meta.write(fields)
        mailer = main if session is None else session.mailer
        email = envelope.email if session is not None and mailer.has_own_hook else reopen(payload)
        envelope.email = None  # free the memory: the payload holds the message, too
        return retry(mailer.backend._wrap(email, **fields), retry_delay(meta, fields["created"]))
    except interrupts():
        raise
    except Exception:  # a site's hook may put anything into the fields
        logger.exception("Message %s cannot be stored as the hook left it; it is requeued unchanged.", meta.id)
        return _retry_as_stored(payload, meta)


def after_interrupt(session: Session | None, payload: bytes) -> Disposition | None:
    """Return the disposition of an interrupted message; None if it is to be put back as it was.

    ``session`` is None if the message had no session yet.
    """
    if session is None:
        return None
    outcome = session.outcome
    if outcome is not None and not outcome.requeue:
        return DELIVERED if outcome.sent else DISCARDED
    if not session.transcript.accepted:
        if outcome is None or session.meta is None or session.meta.remaining is None:
            return None
        return _retry_as_stored(payload, session.meta)
    recipients = session.recipients()
    accepted = names_of(session.transcript.accepted, recipients)
    remaining = [recipient for recipient in recipients if recipient not in accepted]
    if not remaining:
        return DELIVERED
    meta = loads(payload).meta
    meta.remaining = remaining
    return _retry_as_stored(payload, meta)


def reopen(payload: bytes) -> Any:
    """Return a fresh copy of the stored message."""
    return loads(payload).email


def _retry_as_stored(payload: bytes, meta: Meta) -> Disposition:
    """Requeue the stored message with this Meta, or the stored bytes if it cannot be pickled again.

    Bury those bytes if some recipients already have the message, since a retry would send it to them again.
    """
    try:
        envelope = loads(payload)
        meta.write(envelope.extra)
        return retry(dumps(envelope), 0)
    except interrupts():
        raise
    except Exception:  # an unpickled attribute of a message may not be picklable
        if meta.remaining is not None:
            logger.exception("Message %s cannot be stored again.", meta.id)
            return bury(f"it cannot be stored again, and only these are still to get it: {', '.join(meta.remaining)}")
        return retry(None, 0)
