"""When a message may be sent: its attributes ``send_at``, with the values of django-anymail's, and ``expires_at``."""

from __future__ import annotations

import sys
from datetime import date, datetime
from typing import Any, NamedTuple

from django.utils.timezone import get_current_timezone, is_aware, make_aware

from ..envelope import EPOCH_LIMIT
from ..errors import UnstorableMessage

#: What to write instead of a wrong value.
_HINT = "write an aware datetime, a date, or seconds since 1970 as a number"


class Schedule(NamedTuple):
    """When a message may be tried first, and from when on no more; in seconds since 1970, None: not limited."""

    send_at: float | None
    expires_at: float | None


def read_schedule(backend: Any, message: Any) -> Schedule:
    """Read a message's attributes; ignore ``send_at`` if the backend passes it to a service, which holds the message.

    Raises UnstorableMessage for a wrong value, and if the message would expire before it may be sent.
    """
    send_at = None if _service_schedules(backend) else _read(message, "send_at")
    expires_at = _read(message, "expires_at")
    if send_at is not None and expires_at is not None and send_at >= expires_at:
        raise UnstorableMessage("its expires_at is not later than its send_at, so it would never be sent")
    return Schedule(send_at, expires_at)


def _service_schedules(backend: Any) -> bool:
    """Return whether the class that delivers reads ``send_at`` itself: it says so, or is one of django-anymail's."""
    sender = getattr(backend, "delivers_with", type(backend))
    anymail: Any = sys.modules.get("anymail.backends.base")
    is_anymail = anymail is not None and issubclass(sender, anymail.AnymailBaseBackend)
    return bool(getattr(sender, "supports_send_at", is_anymail))


def _read(message: Any, name: str) -> float | None:
    value = getattr(message, name, None)
    if value is None:
        return None
    try:
        seconds = _seconds(value)
        if not abs(seconds) < EPOCH_LIMIT:
            raise ValueError("out of range")
    except TypeError:
        raise UnstorableMessage(f"its {name} is of type {type(value).__name__}: {_HINT}") from None
    except (ValueError, OverflowError):
        raise UnstorableMessage(f"its {name} is out of range: {_HINT}") from None
    return seconds


def _seconds(value: object) -> float:
    """Convert to seconds since 1970. A naive datetime, and a date from midnight on, are in Django's current time zone.

    Raises TypeError, and ValueError or OverflowError for a time that cannot be converted.
    """
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        raise TypeError
    return (value if is_aware(value) else make_aware(value, get_current_timezone())).timestamp()
