"""The verdict on a message after a try: delivered, try again, or give up with a line in the discard log.

What is kept of a message between its tries stands in the envelope's fields, under our key: ``attempts``,
``last_error``, and ``remaining``, the recipients that are still to get it (absent: all).
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from ..delivery.outcomes import DOQUEUE, NOQUEUE, SENT, Outcome
from ..discards import log_discard
from ..envelope import OURS, created_epoch
from ..logs import get_logger
from ..settings import conf
from .refusals import Refusal, refused_for_good

logger = get_logger("delivery")

#: Characters of an error that are kept.
ERROR_LENGTH = 500


def ours(fields: dict[str, Any]) -> dict[str, Any]:
    """Give our part of the fields; a hook may have removed or replaced it."""
    part = fields.get(OURS)
    if not isinstance(part, dict):
        part = fields[OURS] = {}
    return part


def remaining(fields: dict[str, Any]) -> list[str] | None:
    """Name the recipients that are still to get the message; None: all of them."""
    names = ours(fields).get("remaining")
    # 0.1.2 gives our part back without a signature, and so may a stranger.
    return names if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def after_delivery(message: Any, expired: datetime, fields: dict[str, Any], refused: Sequence[Refusal]) -> Outcome:
    """Judge a message that somebody got: the others are tried again alone, or given up."""
    if not refused:
        return SENT
    return _guarded(_judge_partly_delivered, message, expired, fields, refused)


def after_failure(
    message: Any, expired: datetime, fields: dict[str, Any], error: object, refused: Sequence[Refusal], reached: bool
) -> Outcome:
    """Judge a message that nobody got; a try that did not reach the server does not count as one."""
    return _guarded(_judge_failed, message, expired, fields, error, refused, reached)


def _guarded(judge: Any, *arguments: Any) -> Outcome:
    """Keep a message whose discard cannot be logged, or in whose fields a hook left what cannot be read."""
    try:
        outcome: Outcome = judge(*arguments)
    except Exception:  # the log, a site's handlers on it, a site's fields
        logger.exception("A failed message stays in the queue, since its discard cannot be logged.")
        return DOQUEUE
    return outcome


def _judge_partly_delivered(
    message: Any, expired: datetime, fields: dict[str, Any], refused: Sequence[Refusal]
) -> Outcome:
    waiting = ours(fields)["remaining"] = [refusal.recipient for refusal in refused]
    _note(message, fields, "; ".join(f"{refusal.recipient}: {refusal}" for refusal in refused))
    _give_up_recipients(message, fields, waiting, refused, all_of_them=_is_expired(expired, fields))
    return DOQUEUE if waiting else SENT


def _judge_failed(
    message: Any, expired: datetime, fields: dict[str, Any], error: object, refused: Sequence[Refusal], reached: bool
) -> Outcome:
    if reached:
        _note(message, fields, error)
    if _is_expired(expired, fields):
        return _give_up(message, fields, error)
    # Who is left over when others have the message is not kept waiting for what was refused for good.
    if refused and (not conf.MAIL_QUEUE_RETRY_REJECTED or "remaining" in ours(fields)):
        # The server may have been lost before it was asked about the last ones: they are not among the refused.
        waiting = ours(fields).setdefault("remaining", list(dict.fromkeys(message.recipients())))
        _give_up_recipients(message, fields, waiting, refused)
        return DOQUEUE if waiting else NOQUEUE
    if reached and refused_for_good(error) and not conf.MAIL_QUEUE_RETRY_REJECTED:
        return _give_up(message, fields, error)
    return DOQUEUE


def _give_up_recipients(
    message: Any, fields: dict[str, Any], waiting: list[str], refused: Sequence[Refusal], all_of_them: bool = False
) -> None:
    """Log each recipient that was refused for good, or all of the refused, and wait for them no longer."""
    for refusal in refused:
        if refusal.permanent or all_of_them:
            _log(message, fields, [refusal.recipient], refusal)
            waiting[:] = [recipient for recipient in waiting if recipient != refusal.recipient]


def _is_expired(expired: datetime, fields: dict[str, Any]) -> bool:
    return created_epoch(fields["created"], fields) < expired.timestamp()


def _give_up(message: Any, fields: dict[str, Any], error: object) -> Outcome:
    recipients = remaining(fields)
    _log(message, fields, message.to if recipients is None else recipients, error)
    return NOQUEUE


def _log(message: Any, fields: dict[str, Any], recipients: list[str], error: object) -> None:
    log_discard(fields["created"], message.from_email, recipients, message.subject, error)


def _note(message: Any, fields: dict[str, Any], error: object) -> None:
    """Count the try and keep what came of it."""
    part = ours(fields)
    attempts = part.get("attempts")
    part["attempts"] = attempts + 1 if isinstance(attempts, int) else 1
    part["last_error"] = str(error)[:ERROR_LENGTH]
    logger.warning(
        "Message %s, attempt %d: %s",
        _message_id(message),
        part["attempts"],
        part["last_error"],
        exc_info=error if isinstance(error, Exception) else None,
    )


def _message_id(message: Any) -> str:
    headers = {str(name).lower(): value for name, value in getattr(message, "extra_headers", {}).items()}
    return str(headers.get("message-id", "without a Message-ID"))
