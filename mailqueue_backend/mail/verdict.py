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
    """Judge a message that somebody got: the others are tried again alone, or given up when refused for good."""
    if not refused:
        return SENT
    _note(fields, refused[0])
    return _guarded(_only_the_refused, SENT, message, expired, fields, refused)


def after_failure(
    message: Any, expired: datetime, fields: dict[str, Any], error: object, refused: Sequence[Refusal], reached: bool
) -> Outcome:
    """Judge a message that nobody got; a try that did not reach the server does not count as one."""
    if reached:
        _note(fields, error)
    if conf.MAIL_QUEUE_RETRY_REJECTED:
        return _guarded(_again_unless_expired, message, expired, fields, error)
    if refused:
        return _guarded(_only_the_refused, NOQUEUE, message, expired, fields, refused)
    if reached and refused_for_good(error):
        return _guarded(_give_up, message, fields, error)
    return _guarded(_again_unless_expired, message, expired, fields, error)


def _guarded(judge: Any, *arguments: Any) -> Outcome:
    """Keep a message whose discard cannot be logged, or in whose fields a hook left what cannot be read."""
    try:
        outcome: Outcome = judge(*arguments)
    except Exception:  # the log, a site's handlers on it, a site's fields
        logger.exception("A failed message stays in the queue, since its discard cannot be logged.")
        return DOQUEUE
    return outcome


def _only_the_refused(
    when_none_is_left: Outcome, message: Any, expired: datetime, fields: dict[str, Any], refused: Sequence[Refusal]
) -> Outcome:
    part = ours(fields)
    part["remaining"] = [refusal.recipient for refusal in refused]
    for refusal in filter(lambda one: one.permanent, refused):
        _log(message, fields, [refusal.recipient], refusal)
        part["remaining"].remove(refusal.recipient)
    if not part["remaining"]:
        return when_none_is_left
    return _again_unless_expired(message, expired, fields, part["last_error"])


def _again_unless_expired(message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome:
    if created_epoch(fields["created"], fields) >= expired.timestamp():
        return DOQUEUE
    return _give_up(message, fields, error)


def _give_up(message: Any, fields: dict[str, Any], error: object) -> Outcome:
    recipients = remaining(fields)
    _log(message, fields, message.to if recipients is None else recipients, error)
    return NOQUEUE


def _log(message: Any, fields: dict[str, Any], recipients: list[str], error: object) -> None:
    log_discard(fields["created"], message.from_email, recipients, message.subject, error)


def _note(fields: dict[str, Any], error: object) -> None:
    part = ours(fields)
    attempts = part.get("attempts")
    part["attempts"] = attempts + 1 if isinstance(attempts, int) else 1
    part["last_error"] = str(error)[:ERROR_LENGTH]
