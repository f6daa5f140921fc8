"""A queued message as an operator sees it. Opening one is as safe as in a drain: see envelope.loads()."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from ..delivery.addressing import plain_text
from ..envelope import Envelope, id_of_unopened, loads
from ..envelope.identity import own_headers
from ..errors import Unreadable, interrupts
from ..queues.base import Entry, MessageQueue


@dataclass(frozen=True)
class Message:
    """A message that browse() has listed, and what it says about itself. Texts are empty if it cannot be opened."""

    queue: MessageQueue
    entry: Entry
    #: Meta.id, the id in the logs; if the payload does not show it, the first twelve digits of its SHA-256.
    id: str
    #: None: it cannot be opened.
    envelope: Envelope | None = None
    #: Why it cannot be opened.
    problem: str = ""
    #: In seconds since 1970; None: unknown.
    created: float | None = None
    attempts: int = 0
    sender: str = ""
    #: The recipients still to be delivered to.
    recipients: Sequence[str] = ()
    subject: str = ""
    message_id: str = ""
    #: The reason for the last failure, or why it cannot be opened.
    last_error: str = ""

    @property
    def due(self) -> float | None:
        """When it is due, or its lease ends, in seconds since 1970; None for dead messages, or if unknown."""
        return None if self.entry.state == "dead" else self.entry.due

    def as_json(self) -> dict[str, Any]:
        """Return what ``mail_queue list --json`` prints."""
        return {
            "id": self.id,
            "queue": self.queue.name,
            "state": self.entry.state,
            "created": as_iso(self.created),
            "due": as_iso(self.due),
            "attempts": self.attempts,
            "size": len(self.entry.payload),
            "from": self.sender,
            "to": list(self.recipients),
            "subject": self.subject,
            "message_id": self.message_id,
            "last_error": self.last_error,
        }


def open_entry(queue: MessageQueue, entry: Entry, keys: Sequence[bytes] | None = None) -> Message:
    """Open what a queue has listed. ``keys`` is the result of signature.keys(), for a caller that opens many."""
    try:
        return _describe(queue, entry, loads(entry.payload, keys))
    except interrupts():
        raise
    except Unreadable as error:
        problem = str(error)
    except Exception as error:  # noqa: BLE001 - the attributes of a site's own message may raise anything
        problem = f"reading its attributes raised {type(error).__name__}"
    return Message(queue, entry, id_of_unopened(entry.payload), problem=problem, last_error=problem)


def _describe(queue: MessageQueue, entry: Entry, envelope: Envelope) -> Message:
    email, meta = envelope.email, envelope.meta
    recipients = email.recipients() if meta.remaining is None else meta.remaining
    return Message(
        queue,
        entry,
        meta.id,
        envelope,
        created=meta.epoch(envelope.created),
        attempts=meta.attempts,
        sender=plain_text(email.from_email),
        recipients=[plain_text(recipient) for recipient in recipients],
        subject=plain_text(email.subject),
        message_id=plain_text(own_headers(email).get("message-id", "")),
        last_error=meta.last_error,
    )


def as_iso(seconds: float | None) -> str | None:
    """Return a time as ISO 8601 in UTC, as jq's ``fromdate`` reads it; None if unknown, or not in the calendar."""
    try:
        return None if seconds is None else f"{datetime.fromtimestamp(seconds, timezone.utc):%Y-%m-%dT%H:%M:%SZ}"
    except (ValueError, OverflowError, OSError):
        return None
