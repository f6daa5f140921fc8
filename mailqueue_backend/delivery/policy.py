"""What happens to a message after a try: delivered, tried again, or given up with a line in the discard log.

What a reply is about says ``verdict``. A message or recipient that will never be accepted is refused for good.

==========================  =================================  =================================================
who accepted the message    what was refused                   what happens
==========================  =================================  =================================================
some recipients, or some    a recipient, for good              that recipient is given up
had before
as above                    a recipient, else                  that recipient is tried again, alone
nobody                      message or recipient, for good     given up, unless MAIL_QUEUE_RETRY_REJECTED
nobody                      anything else                      tried again
any of these                                                   given up, once older than MAIL_QUEUE_EXPIRE
==========================  =================================  =================================================
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
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

#: Seconds. The retry delay grows with the age of a message, up to this or MAIL_QUEUE_RETRY_DELAY, if that is longer.
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
    """One recipient whom the server did not accept."""

    recipient: str
    reply: Reply

    @property
    def is_final(self) -> bool:
        """The server will never accept this recipient."""
        return self.reply.verdict is Verdict.RECIPIENT


@dataclass
class Attempt:
    """What came of one try to deliver a message."""

    #: Who was to get it.
    recipients: Sequence[str] = ()
    #: Who has it now.
    accepted: Sequence[str] = ()
    refused: Sequence[Refusal] = field(default_factory=list)
    #: An exception or a text: why not all have it; None: nothing went wrong, or the refusals say it.
    error: object = None
    #: The server's reply to the whole message, if that is why.
    reply: Reply | None = None
    #: The reply that leaves it open whether the message can be accepted later.
    doubt: Reply | None = None
    #: There was a connection; otherwise the message was not tried.
    reached: bool = True

    @property
    def is_delivered(self) -> bool:
        """All recipients have it."""
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
        """Return the recipients who do not have it, by the reason why, in words."""
        by_reason: dict[str, list[str]] = {}
        for refusal in self.refused:
            by_reason.setdefault(str(refusal.reply), []).append(refusal.recipient)
        if self.error is not None:
            refused = {refusal.recipient for refusal in self.refused}
            others = self.waiting if self.recipients else list(getattr(message, "to", None) or [])
            by_reason.setdefault(in_words(self.error), []).extend(name for name in others if name not in refused)
        return by_reason


class Judgement(NamedTuple):
    """What the policy says of an attempt."""

    outcome: Outcome
    #: Recipients who were given up while others have the message, or still may get it.
    given_up: int = 0
    #: Seconds until the next try.
    delay: float = 0


def judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Judgement:
    """Decide, note it in ``meta`` and ``fields``, and log what is given up.

    A message whose discard cannot be logged, or in whose fields a hook left what cannot be read, is kept.
    """
    if attempt.is_delivered:
        return Judgement(SENT)
    if attempt.accepted:
        # Before anything can fail: whoever has the message must not get it again.
        meta.remaining = attempt.waiting
    try:
        if attempt.reached:
            reasons = attempt.reasons(message)
            alike = [*reasons] if len(reasons) == 1 else [f"{_listed(names)}: {why}" for why, names in reasons.items()]
            meta.note_failure("; ".join(alike))
        return _judge(message, meta, fields, expired, attempt)
    except interrupts():
        raise
    except Exception:  # the log, a site's handlers on it, a site's fields
        text = "Message %s failed, and stays in the queue, since it cannot be judged or its discard cannot be logged."
        logger.exception(text, meta.id)
        return Judgement(SENT if meta.remaining == [] else DOQUEUE)
    finally:
        meta.write(fields)


def _judge(message: Any, meta: Meta, fields: dict[str, Any], expired: datetime, attempt: Attempt) -> Judgement:
    created, somebody = fields["created"], bool(attempt.accepted)
    is_expired = meta.epoch(created) < expired.timestamp()
    retry_rejected = conf.MAIL_QUEUE_RETRY_REJECTED

    def discard(what: str, recipients: Sequence[str], error: object) -> None:
        message_id = own_headers(message).get("message-id")
        log_discard(Discard(what, created, message.subject, message.from_email, recipients, error, meta.id, message_id))

    if not somebody:
        is_final = attempt.reached and attempt.is_final
        if is_expired or (is_final and not retry_rejected):
            what = "Expired" if is_expired else "Refused" if attempt.reply else "Unsendable"
            everybody = message.to if meta.remaining is None else meta.remaining
            discard(f"Message {what}", everybody, meta.last_error if attempt.reached else in_words(attempt.error))
            return Judgement(NOQUEUE)
        if not attempt.refused or (retry_rejected and meta.remaining is None):
            return Judgement(DOQUEUE, delay=retry_delay(meta, created))
    waiting = meta.remaining = attempt.waiting
    refusals = {refusal.recipient: refusal for refusal in attempt.refused}
    given_up = 0
    for recipient in list(waiting):
        refusal = refusals.get(recipient)
        is_final = refusal is not None and refusal.is_final
        if is_final or (somebody and is_expired):
            what = "Recipient Refused" if is_final else "Message Expired"
            discard(what, [recipient], refusal.reply if refusal else in_words(attempt.error))
            waiting.remove(recipient)
            given_up += 1
    if waiting:
        return Judgement(DOQUEUE, given_up, retry_delay(meta, created))
    return Judgement(SENT, given_up) if somebody else Judgement(NOQUEUE)


def lines_of(message: Any, meta: Meta, attempt: Attempt, judgement: Judgement) -> list[str]:
    """Return what the log says of a message that was tried and is not delivered to all: a line for each reason."""
    when = f"next in {duration(judgement.delay)}" if judgement.delay else "next in the next run"
    lines = []
    for reason, recipients in attempt.reasons(message).items():
        is_pending = judgement.outcome == DOQUEUE and (meta.remaining is None or set(recipients) & set(meta.remaining))
        lines.append(
            f"{meta.id} to {_listed(recipients)}: {reason} "
            f"(attempt {meta.attempts}, {when if is_pending else 'given up'})"
        )
    return lines


def retry_delay(meta: Meta, created: datetime) -> float:
    """Return in how many seconds to try again: as long as the message is old, between the setting and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    return min(max(shortest, time.time() - meta.epoch(created)), max(shortest, LONGEST_DELAY))


def reply_of_a_service(error: object) -> Reply | None:
    """Return what an HTTP API has said, from an error of django-anymail's; None for any other error."""
    anymail = sys.modules.get("anymail.exceptions")
    if anymail is None or not isinstance(error, anymail.AnymailError) or error.status_code is None:
        return None
    return Reply("HTTP", error.status_code, str(error))


def _cannot_be_sent(error: object) -> bool:
    """Return whether no try can succeed: Django cannot encode the message, or django-anymail refuses it itself."""
    if isinstance(error, UnicodeError) or type(error) is LookupError:
        return True
    anymail = sys.modules.get("anymail.exceptions")
    if anymail is None or not isinstance(error, anymail.AnymailError):
        return False
    return error.status_code is None and not isinstance(error, anymail.AnymailAPIError)


def _listed(recipients: Iterable[str], most: int = 3) -> str:
    names = list(dict.fromkeys(map(str, recipients)))
    others = len(names) - most
    return ", ".join(names[:most]) + (f" and {others} more" if others > 0 else "")
