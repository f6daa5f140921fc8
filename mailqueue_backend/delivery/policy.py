"""What becomes of a message after a try: delivered, tried again, or given up with a line in the discard log.

==========================  =================================  =================================================
who accepted the message    what the server said               what becomes of it
==========================  =================================  =================================================
some recipients             5xx to a recipient                 that recipient is given up
some recipients             anything else to a recipient       that recipient is tried again, alone
nobody, yet some before     as for some recipients
nobody                      5xx to recipients, or to all       given up, unless MAIL_QUEUE_RETRY_REJECTED
nobody                      anything else                      tried again
any of these                                                   given up, once it is older than MAIL_QUEUE_EXPIRE
==========================  =================================  =================================================
"""

from __future__ import annotations

import smtplib
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ..discards import log_discard
from ..envelope import Meta
from ..envelope.identity import own_headers
from ..errors import interrupts
from ..logs import get_logger
from ..settings import conf
from .report import DOQUEUE, NOQUEUE, SENT, Outcome

logger = get_logger("delivery")

#: However long a message keeps failing, it is tried once in so many seconds.
LONGEST_DELAY = 3600
#: HTTP's statuses that are about what was posted (RFC 9110, section 15.5), and not about the account or the address.
_ABOUT_THE_MESSAGE = {400, 413, 415, 422}


class Disposition(NamedTuple):
    """What a worker says of a message that it was given; the feed settles it accordingly."""

    what: str
    #: The bytes for another try; None: as they were.
    payload: bytes | None = None
    #: Seconds until that try.
    delay: float = 0
    #: Why, for people.
    reason: str = ""


#: Accepted by at least one recipient; none remain.
DELIVERED = Disposition("sent")
#: Given up, and in the discard log.
DISCARDED = Disposition("discarded")
#: Its mailer is blocked, or the drain is told to let go.
NOT_TRIED = Disposition("not tried")
#: This worker has no connection, and others have.
RETURNED = Disposition("returned")


def retry(payload: bytes | None, delay: float) -> Disposition:
    """It failed, and is tried again."""
    return Disposition("requeued", payload, delay)


def bury(reason: object) -> Disposition:
    """Unreadable, or suspected of crashing the drain: move to the dead queue."""
    return Disposition("buried", reason=str(reason))


def leave(reason: object) -> Disposition:
    """Another process may be able to read it: leave it to its lease."""
    return Disposition("left", reason=str(reason))


class Refusal(NamedTuple):
    """One recipient whom the server did not accept."""

    recipient: str
    code: int
    reply: str

    @property
    def permanent(self) -> bool:
        """5xx: trying again is of no use (RFC 5321, section 4.2.1)."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {self.reply}"


@dataclass
class Attempt:
    """What came of one try to deliver a message."""

    #: Who was to get it.
    recipients: Sequence[str] = ()
    #: Who has it now.
    accepted: Sequence[str] = ()
    refused: Sequence[Refusal] = field(default_factory=list)
    #: An exception or a text: why not all have it; None: nothing went wrong.
    error: object = None
    #: There was a connection; otherwise the message was not tried.
    reached: bool = True

    @property
    def waiting(self) -> list[str]:
        """The recipients still pending."""
        if self.error is None:
            return [refusal.recipient for refusal in self.refused]
        return [recipient for recipient in dict.fromkeys(self.recipients) if recipient not in self.accepted]


def judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Outcome:
    """Decide, note it in ``meta`` and ``fields``, and log what is given up.

    A message whose discard cannot be logged, or in whose fields a hook left what cannot be read, is kept.
    """
    if attempt.error is None and not attempt.refused:
        return SENT
    if attempt.accepted:
        # Before anything can fail: whoever has the message must not get it again.
        meta.remaining = attempt.waiting
    try:
        if attempt.reached:
            _note(message, meta, attempt)
        return _judge(message, meta, fields, expired, attempt)
    except interrupts():
        raise
    except Exception:  # the log, a site's handlers on it, a site's fields
        text = "Message %s failed, and stays in the queue, since it cannot be judged or its discard cannot be logged."
        logger.exception(text, meta.id)
        return SENT if meta.remaining == [] else DOQUEUE
    finally:
        meta.write(fields)


def _judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Outcome:
    created, somebody = fields["created"], bool(attempt.accepted)
    is_expired = meta.epoch(created) < expired.timestamp()
    retry_rejected = conf.MAIL_QUEUE_RETRY_REJECTED

    def discard(recipients: Sequence[str], error: object) -> None:
        log_discard(created, message.from_email, recipients, message.subject, error, meta.id)

    if not somebody:
        if is_expired or (
            attempt.reached and not retry_rejected and not attempt.refused and refused_for_good(attempt.error)
        ):
            discard(message.to if meta.remaining is None else meta.remaining, attempt.error)
            return NOQUEUE
        if not attempt.refused or (retry_rejected and meta.remaining is None):
            return DOQUEUE
    waiting = meta.remaining = attempt.waiting
    refusals = {refusal.recipient: refusal for refusal in attempt.refused}
    for recipient in list(waiting):
        refusal = refusals.get(recipient)
        if (somebody and is_expired) or (refusal and refusal.permanent):
            discard([recipient], refusal or attempt.error)
            waiting.remove(recipient)
    return DOQUEUE if waiting else SENT if somebody else NOQUEUE


def _note(message: Any, meta: Meta, attempt: Attempt) -> None:
    """Count the try, and keep and log what came of it."""
    error = attempt.error
    if error is None:
        error = "; ".join(f"{refusal.recipient}: {refusal}" for refusal in attempt.refused)
    meta.note_failure(error)
    logger.warning(
        "Message %s %s, attempt %d: %s",
        meta.id,
        own_headers(message).get("message-id", "without a Message-ID"),
        meta.attempts,
        meta.last_error,
        exc_info=error if isinstance(error, Exception) else None,
    )


def retry_delay(meta: Meta, created: datetime) -> float:
    """Return in how many seconds to try again: as long as the message is old, between the setting and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    return min(max(shortest, time.time() - meta.epoch(created)), max(shortest, LONGEST_DELAY))


def refused_for_good(error: object) -> bool:
    """Return whether an error is the refusal of the whole message, which trying again does not change."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(500 <= code < 600 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return 500 <= error.smtp_code < 600
    return _refused_by_a_service(error)


def _refused_by_a_service(error: object) -> bool:
    """Answer for django-anymail: its own refusals, and what an HTTP API says to the request itself (RFC 9110)."""
    anymail = sys.modules.get("anymail.exceptions")
    if anymail is None or not isinstance(error, anymail.AnymailError):
        return False
    if error.status_code is not None:
        return error.status_code in _ABOUT_THE_MESSAGE
    return not isinstance(error, anymail.AnymailAPIError)
