"""What we store with a message, under one key among the site's own."""

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
#: Characters of an error that are kept.
ERROR_LENGTH = 500
_ID = re.compile(r"[0-9a-f]{12}")
#: No message was queued so many seconds from 1970.
_FAR = 1e11


class Meta:
    """What we store with a message; the one reader and writer of META_KEY.

    ``id``          twelve hex digits, the name of the message for people, the same over all tries
    ``using``       the alias of the mailer by which it was sent; None: it names none
    ``attempts``    how often it was tried and failed
    ``last_error``  why, the last time
    ``remaining``   the recipients who are still to get it; None: all of them
    """

    def __init__(self, id: str, using: str | None = None) -> None:
        self.id = id
        self.using = using
        self.attempts = 0
        self.last_error = ""
        self.remaining: list[str] | None = None
        #: ``created`` and the seconds since 1970 that it stands for; they count only while the two match.
        self.created: datetime | None = None
        self.created_epoch = 0.0
        #: It stands in the payload; False: it was made up for a payload without one.
        self.stored = True
        #: What a newer release has stored beside that.
        self._others: dict[str, Any] = {}

    @classmethod
    def new(cls, created: datetime, created_epoch: float, using: str | None) -> Meta:
        """Begin the record of a message that is being queued."""
        meta = cls(token_hex(6), using)
        meta.created, meta.created_epoch = created, created_epoch
        return meta

    @classmethod
    def read(cls, fields: Mapping[str, Any], payload: bytes | None = None) -> Meta:
        """Read what is stored in an envelope's fields; ``payload`` names a message that has no id.

        Raises Unreadable where it cannot be told who is still to get the message: it must not go to all again.
        """
        stored = fields.get(META_KEY)
        stored = dict(stored) if isinstance(stored, dict) else {}
        found, using, attempts, last_error, remaining, created, epoch = (
            stored.pop("id", None),
            stored.pop("using", None),
            stored.pop("attempts", 0),
            stored.pop("last_error", ""),
            stored.pop("remaining", None),
            stored.pop("created", None),
            stored.pop("created_epoch", None),
        )
        has_id = isinstance(found, str) and _ID.fullmatch(found)
        meta = cls(found if has_id else id_of(payload), using if isinstance(using, str) else None)
        meta.stored = bool(has_id)
        meta.attempts = attempts if isinstance(attempts, int) else 0
        meta.last_error = last_error if isinstance(last_error, str) else ""
        if isinstance(created, datetime) and isinstance(epoch, (int, float)) and abs(epoch) < _FAR:
            meta.created, meta.created_epoch = created, float(epoch)
        if remaining is not None:
            if not isinstance(remaining, list) or not set(map(type, remaining)) <= {str}:
                raise Unreadable("the list of the recipients who are still to get it is damaged")
            meta.remaining = remaining
        meta._others = stored
        return meta

    def write(self, fields: dict[str, Any]) -> None:
        """Store it in an envelope's fields."""
        known = {
            "id": self.id,
            "using": self.using,
            "attempts": self.attempts,
            "last_error": self.last_error,
            "remaining": self.remaining,
            "created": self.created,
            "created_epoch": self.created_epoch if self.created else None,
        }
        fields[META_KEY] = {**self._others, **{name: value for name, value in known.items() if value not in (None, "")}}

    def note_failure(self, error: object) -> None:
        """Count a try that failed, and keep why."""
        self.attempts += 1
        self.last_error = str(error)[:ERROR_LENGTH]

    def epoch(self, created: datetime) -> float:
        """Return when the message was queued, in seconds since 1970: as stamped, while the stamp is of ``created``."""
        return self.created_epoch if self.created == created else latest_epoch(created)


def id_of(payload: bytes | None) -> str:
    """Return the id of a message whose payload stores none; "" without a payload."""
    return "" if payload is None else sha256(payload).hexdigest()[:12]


def latest_epoch(created: datetime) -> float:
    """Read a naive local time; an ambiguous one as the later of the two, so that no message expires early."""
    try:
        return max(created.replace(fold=fold).timestamp() for fold in (0, 1))
    except (OverflowError, ValueError, OSError):  # the first or last year that there is
        return created.replace(tzinfo=timezone.utc).timestamp()
