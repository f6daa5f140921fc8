"""The record that we store with each message, under one reserved key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from hashlib import sha256
from secrets import token_hex
from typing import Any

from ..errors import Unreadable

#: The reserved key; all other keys are the site's.
META_KEY = "mailqueue"
#: Maximum length of a stored error, in characters.
ERROR_LENGTH = 500
_ID = re.compile(r"[0-9a-f]{12}")
#: A stored time this many seconds or more from 1970 is taken for damaged.
_EPOCH_LIMIT = 1e11


class Meta:
    """Our record of a message; the only reader and writer of META_KEY.

    ``id``          twelve hex digits that identify the message in logs, the same over all attempts
    ``using``       the alias of the mailer that the message was sent with; None if it names no mailer
    ``attempts``    the number of failed attempts
    ``last_error``  the reason for the last failure
    ``remaining``   the recipients still to be delivered to; None for all of them
    """

    def __init__(self, id: str, using: str | None = None) -> None:
        self.id = id
        self.using = using
        self.attempts = 0
        self.last_error = ""
        self.remaining: list[str] | None = None
        #: The envelope's ``created`` when it was stamped, and the same in seconds since 1970. See epoch().
        self.created: datetime | None = None
        self.created_epoch = 0.0
        #: Whether the payload contains the id; otherwise it was derived from the payload.
        self.stored = True
        #: Fields that a newer release has stored; write() preserves them.
        self._unknown_fields: dict[str, Any] = {}

    @classmethod
    def new(cls, created: datetime, created_epoch: float, using: str | None) -> Meta:
        """Return the record of a message that is about to be queued."""
        meta = cls(token_hex(6), using)
        meta.created, meta.created_epoch = created, created_epoch
        return meta

    @classmethod
    def read(cls, fields: Mapping[str, Any], payload: bytes | None = None) -> Meta:
        """Read the record from an envelope's fields. If it has no id, derive one from ``payload``.

        Raises Unreadable if the remaining recipients are damaged: the message must not go to all of them again.
        """
        stored = fields.get(META_KEY)
        stored = dict(stored) if isinstance(stored, dict) else {}
        message_id, using, attempts, last_error, remaining, created, epoch = (
            stored.pop("id", None),
            stored.pop("using", None),
            stored.pop("attempts", 0),
            stored.pop("last_error", ""),
            stored.pop("remaining", None),
            stored.pop("created", None),
            stored.pop("created_epoch", None),
        )
        has_id = isinstance(message_id, str) and _ID.fullmatch(message_id)
        meta = cls(message_id if has_id else id_of(payload), using if isinstance(using, str) else None)
        meta.stored = bool(has_id)
        meta.attempts = attempts if isinstance(attempts, int) else 0
        meta.last_error = last_error if isinstance(last_error, str) else ""
        if isinstance(created, datetime) and isinstance(epoch, (int, float)) and abs(epoch) < _EPOCH_LIMIT:
            meta.created, meta.created_epoch = created, float(epoch)
        if remaining is not None:
            if not isinstance(remaining, list) or not set(map(type, remaining)) <= {str}:
                raise Unreadable("the list of the remaining recipients is damaged")
            meta.remaining = remaining
        meta._unknown_fields = stored
        return meta

    def write(self, fields: dict[str, Any]) -> None:
        """Store the record in an envelope's fields."""
        known = {
            "id": self.id,
            "using": self.using,
            "attempts": self.attempts,
            "last_error": self.last_error,
            "remaining": self.remaining,
            "created": self.created,
            "created_epoch": self.created_epoch if self.created else None,
        }
        given = {name: value for name, value in known.items() if value not in (None, "")}
        fields[META_KEY] = {**self._unknown_fields, **given}

    def note_failure(self, error: object) -> None:
        """Count a failed attempt and store its error."""
        self.attempts += 1
        self.last_error = str(error)[:ERROR_LENGTH]

    def epoch(self, created: datetime) -> float:
        """Return the seconds since 1970 of ``created``: those stamped for it, unless a hook has changed ``created``."""
        return self.created_epoch if self.created == created else latest_epoch(created)


def id_of(payload: bytes | None) -> str:
    """Derive the id of a message from its payload; "" without a payload."""
    return "" if payload is None else sha256(payload).hexdigest()[:12]


def latest_epoch(created: datetime) -> float:
    """Convert naive local time to seconds since 1970; take the later reading of an ambiguous time.

    So no message expires early when clocks go back.
    """
    try:
        return max(created.replace(fold=fold).timestamp() for fold in (0, 1))
    except (OverflowError, ValueError, OSError):  # near datetime.min or datetime.max
        return created.replace(tzinfo=timezone.utc).timestamp()
