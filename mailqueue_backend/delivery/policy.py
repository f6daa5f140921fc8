"""Decide after each attempt: the message is delivered, tried again, or given up and recorded in the discard log.

``verdict`` classifies the replies. A message or recipient that will never be accepted is refused for good.

==========================  =================================  =================================================
accepted for                refused                            result
==========================  =================================  =================================================
some recipients, now or     a recipient, for good              that recipient is given up
in an earlier attempt
as above                    a recipient, for now               only that recipient is tried again
none                        message or recipient, for good     given up, unless MAIL_QUEUE_RETRY_REJECTED
none                        anything else                      tried again
any of these                                                   given up, once older than MAIL_QUEUE_EXPIRE
==========================  =================================  =================================================
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from types import ModuleType
from typing import Any, NamedTuple

from ..discards import Discard, log_discard
from ..envelope import Meta
from ..envelope.identity import own_headers
from ..errors import interrupts
from ..logs import get_logger
from ..settings import conf
from .report import DOQUEUE, NOQUEUE, SENT, Outcome
from .verdict import Reply, Verdict
from .words import duration, in_words

logger = get_logger("delivery")

#: Maximum retry delay in seconds, unless MAIL_QUEUE_RETRY_DELAY is longer.
LONGEST_DELAY = 3600


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
#: Given up, and recorded in the discard log.
DISCARDED = Disposition("discarded")
#: The mailer is blocked, the sender is paused, or the drain was aborted.
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
    reply: Reply

    @property
    def is_final(self) -> bool:
        """The server will never accept this recipient."""
        return self.reply.verdict is Verdict.RECIPIENT


@dataclass
class Attempt:
    """The result of one attempt to deliver a message."""

    #: The recipients of this attempt, as the message spells them; empty if none was accepted or refused.
    recipients: Sequence[str] = ()
    #: The recipients for which the server accepted the message.
    accepted: Sequence[str] = ()
    refused: Sequence[Refusal] = field(default_factory=list)
    #: Why delivery failed for recipients that were not refused: an exception, a Reply or a text; None: it did not.
    error: object = None
    #: The reply that refused the whole message, if any.
    reply: Reply | None = None
    #: A reply after which the message may still be accepted later, if any.
    doubt: Reply | None = None
    #: Whether the message was tried; False: the mailer or sender has to wait, or there was no connection.
    reached: bool = True

    @property
    def is_delivered(self) -> bool:
        """The message was accepted for all recipients."""
        return self.error is None and not self.refused

    @property
    def waiting(self) -> list[str]:
        """The recipients still pending."""
        if self.error is None:
            return [refusal.recipient for refusal in self.refused]
        return [recipient for recipient in dict.fromkeys(self.recipients) if recipient not in self.accepted]

    @property
    def is_final(self) -> bool:
        """The whole message will never be accepted."""
        if self.reply is not None:
            return self.reply.verdict is Verdict.MESSAGE
        return not self.refused and _cannot_be_sent(self.error)

    def reasons(self, message: Any) -> dict[str, list[str]]:
        """Return the recipients that the message did not reach, by the text of the reason."""
        by_reason: dict[str, list[str]] = {}
        for refusal in self.refused:
            by_reason.setdefault(str(refusal.reply), []).append(refusal.recipient)
        if self.error is not None:
            refused = {refusal.recipient for refusal in self.refused}
            others = self.waiting if self.recipients else list(getattr(message, "to", None) or [])
            by_reason.setdefault(in_words(self.error), []).extend(name for name in others if name not in refused)
        return by_reason


class Judgement(NamedTuple):
    """The policy's decision after an attempt."""

    outcome: Outcome
    #: Number of recipients given up while the message was accepted for others, or still may be.
    given_up: int = 0
    #: Seconds until the next try.
    delay: float = 0


def judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Judgement:
    """Decide, record the result in ``meta`` and ``fields``, and log what is given up.

    A message is kept if its discard cannot be logged, or if a hook left unreadable values in ``fields``.
    """
    if attempt.is_delivered:
        return Judgement(SENT)
    if attempt.accepted:
        # Record this before anything can fail: no recipient may get the message twice.
        meta.remaining = attempt.waiting
    try:
        if attempt.reached:
            reasons = attempt.reasons(message)
            alike = [*reasons] if len(reasons) == 1 else [f"{_join(names)}: {why}" for why, names in reasons.items()]
            meta.note_failure("; ".join(alike))
        return _judge(message, meta, fields, expired, attempt)
    except interrupts():
        raise
    except Exception:  # log handlers and fields of the site
        text = "Message %s failed, and stays in the queue, since it cannot be judged or its discard cannot be logged."
        logger.exception(text, meta.id)
        return Judgement(SENT if meta.remaining == [] else DOQUEUE)
    finally:
        meta.write(fields)


def _judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Judgement:
    created, is_accepted = fields["created"], bool(attempt.accepted)
    is_expired = meta.epoch(created) < expired.timestamp()
    retry_rejected = conf.MAIL_QUEUE_RETRY_REJECTED

    def discard(what: str, recipients: Sequence[str], error: object) -> None:
        _log(what, message, meta, created, recipients, error)

    if not is_accepted:
        is_final = attempt.reached and attempt.is_final
        if is_expired or (is_final and not retry_rejected):
            what = "Expired" if is_expired else "Refused" if attempt.reply else "Unsendable"
            recipients = message.to if meta.remaining is None else meta.remaining
            discard(f"Message {what}", recipients, meta.last_error if attempt.reached else in_words(attempt.error))
            return Judgement(NOQUEUE)
        if not attempt.refused or (retry_rejected and meta.remaining is None):
            return Judgement(DOQUEUE, delay=retry_delay(meta, created))
    waiting = meta.remaining = attempt.waiting
    refusals = {refusal.recipient: refusal for refusal in attempt.refused}
    given_up = 0
    for recipient in list(waiting):
        refusal = refusals.get(recipient)
        is_final = refusal is not None and refusal.is_final
        if is_final or (is_accepted and is_expired):
            what = "Recipient Refused" if is_final else "Message Expired"
            discard(what, [recipient], refusal.reply if refusal else in_words(attempt.error))
            waiting.remove(recipient)
            given_up += 1
    if waiting:
        return Judgement(DOQUEUE, given_up, retry_delay(meta, created))
    return Judgement(SENT, given_up) if is_accepted else Judgement(NOQUEUE)


def log_given_up_by_hook(message: Any, meta: Meta, fields: dict[str, Any], hook: str) -> Outcome:
    """Write the line of a message that a hook has given up without one. Keep the message if that is impossible."""
    try:
        recipients = message.to if meta.remaining is None else meta.remaining
        _log("Message Refused", message, meta, fields.get("created"), recipients, f"given up by {hook}")
    except interrupts():
        raise
    except Exception:  # the hook may have replaced the message by anything
        logger.exception("Message %s stays in the queue, since its discard cannot be logged.", meta.id)
        return DOQUEUE
    return NOQUEUE


def _log(what: str, message: Any, meta: Meta, created: object, recipients: Sequence[str], error: object) -> None:
    message_id = own_headers(message).get("message-id")
    log_discard(Discard(what, created, message.subject, message.from_email, recipients, error, meta.id, message_id))


def lines_of(message: Any, meta: Meta, attempt: Attempt, judgement: Judgement) -> list[str]:
    """Return the log lines about a message that was not delivered to all recipients, one for each reason."""
    when = f"next in {duration(judgement.delay)}" if judgement.delay else "next in the next run"
    lines = []
    for reason, recipients in attempt.reasons(message).items():
        is_pending = judgement.outcome == DOQUEUE and (meta.remaining is None or set(recipients) & set(meta.remaining))
        lines.append(
            f"{meta.id} to {_join(recipients)}: {reason} "
            f"(attempt {meta.attempts}, {when if is_pending else 'given up'})"
        )
    return lines


def retry_delay(meta: Meta, created: datetime) -> float:
    """Return the seconds until the next attempt: the message's age, at least the setting, at most LONGEST_DELAY."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    return min(max(shortest, time.time() - meta.epoch(created)), max(shortest, LONGEST_DELAY))


def reply_of_a_service(error: object) -> Reply | None:
    """Return the reply of an HTTP API from one of django-anymail's errors; None for any other error."""
    status: int | None = getattr(error, "status_code", None) if _anymail_of(error) else None
    return None if status is None else Reply("HTTP", status, str(error))


def _cannot_be_sent(error: object) -> bool:
    """Return whether no attempt can succeed: Django cannot encode the message, or django-anymail rejects it."""
    if isinstance(error, UnicodeError) or type(error) is LookupError:
        return True
    anymail: Any = _anymail_of(error)
    return bool(anymail) and reply_of_a_service(error) is None and not isinstance(error, anymail.AnymailAPIError)


def _anymail_of(error: object) -> ModuleType | None:
    """Return django-anymail's module of errors, if this is one of them; None otherwise."""
    anymail = sys.modules.get("anymail.exceptions")
    return anymail if anymail is not None and isinstance(error, anymail.AnymailError) else None


def _join(recipients: Iterable[str], most: int = 3) -> str:
    """Return the first ``most`` names, and the number of the others."""
    names = list(dict.fromkeys(map(str, recipients)))
    others = len(names) - most
    return ", ".join(names[:most]) + (f" and {others} more" if others > 0 else "")
