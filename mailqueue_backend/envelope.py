"""The envelope around a queued message, and its bytes.

The payload is a pickle of 0.1.2's dict ``{"email": message, "created": naive local datetime, **extra}``,
then a trailer of 36 bytes that 0.1.2 ignores: the magic ``MQB1`` and an HMAC-SHA256 over the pickle, keyed
from SECRET_KEY. Of ``extra``, the key ``mailqueue`` is ours; all others are the site's.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from django.utils.functional import Promise

from .errors import Unreadable

#: 0.1.2 reads it on every Python 3.
PROTOCOL = 4
#: The key of ``extra`` under which we keep what is ours.
OURS = "mailqueue"


@dataclass
class Envelope:
    """A message and what is stored with it."""

    email: Any
    #: When it was queued, in naive local time, as 0.1.2 has it.
    created: datetime
    #: What the site gave to ``send_messages()``, and OURS.
    extra: dict[str, Any] = field(default_factory=dict)


class _Pickler(pickle.Pickler):
    """Pickles a lazy text as the text it stands for now: the drain knows nothing of the sender's language."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, (str(obj),)) if isinstance(obj, Promise) else NotImplemented


def dumps(envelope: Envelope) -> bytes:
    """Serialise an envelope. Raises whatever pickling its message raises."""
    buffer = BytesIO()
    _Pickler(buffer, PROTOCOL).dump({"email": envelope.email, "created": envelope.created, **envelope.extra})
    return buffer.getvalue()


def loads(payload: bytes) -> Envelope:
    """Open a payload. Raises Unreadable when it holds no message."""
    try:
        extra = pickle.loads(payload)
        return Envelope(extra.pop("email"), extra.pop("created"), extra)
    except Exception as error:
        raise Unreadable(f"{type(error).__name__}: {error}") from error


def created_epoch(created: datetime, extra: Mapping[str, Any]) -> float:
    """Tell when a message was queued, in seconds since 1970: as stamped, while the stamp is of this ``created``."""
    ours = extra.get(OURS, {})
    return float(ours["created_epoch"]) if ours.get("created") == created else latest_epoch(created)


def latest_epoch(created: datetime) -> float:
    """Read a naive local time; an ambiguous one as the later of the two, so that no message expires early."""
    return max(created.replace(fold=fold).timestamp() for fold in (0, 1))
