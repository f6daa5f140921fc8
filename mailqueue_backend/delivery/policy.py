"""The outcome of a delivery attempt: delivered, tried again, or given up with a line in the discard log.

==========================  =================================  =================================================
accepted for                server's reply                     outcome
==========================  =================================  =================================================
some recipients             5xx for a recipient                that recipient is given up
some recipients             anything else for a recipient      only the remaining recipients are tried again
none now, some earlier      as for some recipients
none                        5xx for recipients or message      given up, unless MAIL_QUEUE_RETRY_REJECTED
none                        anything else                      tried again
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

#: Seconds. The retry delay grows with the age of a message, up to this or MAIL_QUEUE_RETRY_DELAY, if that is longer.
LONGEST_DELAY = 3600
#: HTTP status codes that reject the content of the request (RFC 9110, section 15.5), not the account or the address.
_ABOUT_THE_MESSAGE = {400, 413, 415, 422}


class Disposition(NamedTuple):
    """A worker's decision about a message, which the feed settles accordingly."""

    what: str
    #: The new bytes of a requeued message; None: unchanged.
    payload: bytes | None = None
    #: Seconds until a requeued message is due.
    delay: float = 0
    #: The reason, for the log.
    reason: str = ""


#: Accepted for at least one recipient; none remain.
DELIVERED = Disposition("sent")
#: Given up, and in the discard log.
DISCARDED = Disposition("discarded")
#: Its mailer is blocked, or the drain was told to abort.
NOT_TRIED = Disposition("not tried")
#: This worker cannot connect, while others are connected.
RETURNED = Disposition("returned")


def retry(payload: bytes | None, delay: float) -> Disposition:
    """Requeue a message that failed."""
    return Disposition("requeued", payload, delay)


def bury(reason: object) -> Disposition:
    """Move a message to the dead queue: it is unreadable, or may crash the drain."""
    return Disposition("buried", reason=str(reason))


def leave(reason: object) -> Disposition:
    """Leave a message reserved until its lease ends: another process may be able to read it."""
    return Disposition("left", reason=str(reason))


class Refusal(NamedTuple):
    """One recipient that the server refused."""

    recipient: str
    code: int
    reply: str

    @property
    def permanent(self) -> bool:
        """Whether the code is 5xx, so that a retry is useless (RFC 5321, section 4.2.1)."""
        return 500 <= self.code < 600

    def __str__(self) -> str:
        return f"{self.code} {self.reply}"


@dataclass
class Attempt:
    """The result of one attempt to deliver a message."""

    #: The recipients of the attempt.
    recipients: Sequence[str] = ()
    #: The recipients for whom the server accepted it.
    accepted: Sequence[str] = ()
    #: The recipients that the server refused.
    refused: Sequence[Refusal] = field(default_factory=list)
    #: An exception or a text; None: no error besides ``refused``.
    error: object = None
    #: Whether there was a connection; if not, the message was not tried.
    has_connected: bool = True

    @property
    def pending(self) -> list[str]:
        """The recipients for whom the server has not accepted the message."""
        if self.error is None:
            return [refusal.recipient for refusal in self.refused]
        return [recipient for recipient in dict.fromkeys(self.recipients) if recipient not in self.accepted]


def judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Outcome:
    """Return the outcome of an attempt, record it in ``meta`` and ``fields``, and log what is given up.

    Keep a message if its discard cannot be logged, or if a hook left an unreadable value in its fields.
    """
    if attempt.error is None and not attempt.refused:
        return SENT
    if attempt.accepted:
        # Before anything can fail: a recipient that has the message must not get it again.
        meta.remaining = attempt.pending
    try:
        if attempt.has_connected:
            _record_failure(message, meta, attempt)
        return _decide(message, meta, fields, expired, attempt)
    except interrupts():
        raise
    except Exception:  # the log file, a site's log handler, or a site's fields
        text = "Message %s failed, and stays in the queue: its outcome could not be decided, or its discard logged."
        logger.exception(text, meta.id)
        return SENT if meta.remaining == [] else DOQUEUE
    finally:
        meta.write(fields)


def _decide(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Outcome:
    created, is_accepted = fields["created"], bool(attempt.accepted)
    is_expired = meta.epoch(created) < expired.timestamp()
    retry_rejected = conf.MAIL_QUEUE_RETRY_REJECTED

    def discard(recipients: Sequence[str], error: object) -> None:
        log_discard(created, message.from_email, recipients, message.subject, error, meta.id)

    if not is_accepted:
        if is_expired or (
            attempt.has_connected and not retry_rejected and not attempt.refused and refused_for_good(attempt.error)
        ):
            discard(message.to if meta.remaining is None else meta.remaining, attempt.error)
            return NOQUEUE
        if not attempt.refused or (retry_rejected and meta.remaining is None):
            return DOQUEUE
    pending = meta.remaining = attempt.pending
    refusals = {refusal.recipient: refusal for refusal in attempt.refused}
    for recipient in list(pending):
        refusal = refusals.get(recipient)
        if (is_accepted and is_expired) or (refusal and refusal.permanent):
            discard([recipient], refusal or attempt.error)
            pending.remove(recipient)
    if pending:
        return DOQUEUE
    return SENT if is_accepted else NOQUEUE


def _record_failure(message: Any, meta: Meta, attempt: Attempt) -> None:
    """Count the attempt, and store and log its error."""
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
    """Return the seconds until the next attempt: the age of the message, between MAIL_QUEUE_RETRY_DELAY and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    return min(max(shortest, time.time() - meta.epoch(created)), max(shortest, LONGEST_DELAY))


def refused_for_good(error: object) -> bool:
    """Return whether an error permanently refuses the whole message."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(500 <= code < 600 for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return 500 <= error.smtp_code < 600
    return _is_refused_by_api(error)


def _is_refused_by_api(error: object) -> bool:
    """Return whether django-anymail refused the message, or the HTTP API behind it rejected the request's content."""
    anymail = sys.modules.get("anymail.exceptions")
    if anymail is None or not isinstance(error, anymail.AnymailError):
        return False
    if error.status_code is not None:
        return error.status_code in _ABOUT_THE_MESSAGE
    return not isinstance(error, anymail.AnymailAPIError)
