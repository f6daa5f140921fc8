"""The envelope around a queued message, and its bytes.

The payload is a pickle of 0.1.2's dict ``{"email": message, "created": naive local datetime, **extra}``, then a
trailer that 0.1.2 ignores (``signature``). Of ``extra``, the key ``mailqueue`` is ours; all others are the site's.
Only a pickle that is signed is unpickled; any other is read as inert data (``legacy``).
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from io import BytesIO
from typing import Any

from django.core.mail import EmailMessage
from django.utils.functional import Promise

from . import legacy, signature
from .errors import UnknownClass, Unreadable
from .identity import identify
from .mending import STAND_INS, mend
from .settings import conf

#: 0.1.2 reads it on every Python 3.
PROTOCOL = 4
#: The key of ``extra`` under which we keep what is ours.
OURS = "mailqueue"
#: No message was queued so many seconds from 1970.
_FAR = 1e11


@dataclass
class Envelope:
    """A message and what is stored with it."""

    email: Any
    #: When it was queued, in naive local time, as 0.1.2 has it.
    created: datetime
    #: What the site gave to ``send_messages()``, and OURS.
    extra: dict[str, Any] = field(default_factory=dict)


def dumps(envelope: Envelope) -> bytes:
    """Serialise an envelope and sign it. Raises whatever pickling its message raises."""
    buffer = BytesIO()
    created = naive_local(envelope.created)
    _Pickler(buffer, PROTOCOL).dump({"email": envelope.email, "created": created, **envelope.extra})
    with buffer.getbuffer() as pickled:  # no copy: an attachment may be big
        trailer = signature.trailer(pickled)
    buffer.write(trailer)
    return buffer.getvalue()


def sign(payload: bytes) -> bytes:
    """Vouch for a payload that somebody else wrote: what it names will be imported, what it calls will run."""
    pickled, _ = signature.detach(payload)
    return signature.append(pickled)


def loads(payload: bytes) -> Envelope:
    """Open a payload. Raises Unreadable when it holds no message, UnknownClass when it may do so elsewhere."""
    if not isinstance(payload, bytes):
        raise Unreadable("it is not bytes")
    pickled, signed = signature.detach(payload)
    if signed is not None:
        signature.verify(pickled, signed)
        content = _unpickled(payload, pickled)
    elif conf.MAIL_QUEUE_UNSIGNED == "quarantine":
        raise Unreadable("it has no signature, and MAIL_QUEUE_UNSIGNED is 'quarantine'")
    else:
        content = legacy.read(payload)
    if not isinstance(content, dict) or content.get("email") is None:
        raise Unreadable("it is not a dict with a message")
    envelope = Envelope(content.pop("email"), content.pop("created", None), content)
    try:
        _complete(envelope, pickled, ours=signed is not None and OURS in content)
    except Exception as error:  # noqa: BLE001 - the message may be of a site's class, its attributes anything
        raise Unreadable(f"making its message whole raised {type(error).__name__}") from None
    return envelope


def created_epoch(created: datetime, extra: Mapping[str, Any]) -> float:
    """Tell when a message was queued, in seconds since 1970: as stamped, while the stamp is of this ``created``."""
    ours = extra.get(OURS)
    if isinstance(ours, dict) and ours.get("created") == created:
        epoch = ours.get("created_epoch")
        if isinstance(epoch, (int, float)) and abs(epoch) < _FAR:
            return float(epoch)
    return latest_epoch(created)


def latest_epoch(created: datetime) -> float:
    """Read a naive local time; an ambiguous one as the later of the two, so that no message expires early."""
    try:
        return max(created.replace(fold=fold).timestamp() for fold in (0, 1))
    except (OverflowError, ValueError, OSError):  # the first or last year that there is
        return created.replace(tzinfo=timezone.utc).timestamp()


class _Pickler(pickle.Pickler):
    """Pickles a lazy text as the text it stands for now: the drain knows nothing of the sender's language."""

    def reducer_override(self, obj: Any) -> Any:
        return (str, (str(obj),)) if isinstance(obj, Promise) else NotImplemented


class _Unpickler(pickle.Unpickler):
    """Tells a class that cannot be imported from all else that may go wrong."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except Exception as error:  # the site's module may raise anything
            if (module, name) in STAND_INS:
                return STAND_INS[module, name]
            raise UnknownClass(f"{module}.{name} cannot be imported: {type(error).__name__}") from error


def _unpickled(payload: bytes, pickled: bytes | memoryview) -> Any:
    """Unpickle what is verified; the trailer that stands behind the end of the pickle is so as well."""
    if legacy.written_by_python2(payload):
        return legacy.read(bytes(pickled), trusted=True)
    try:
        return _Unpickler(BytesIO(payload)).load()
    except Unreadable:
        raise
    except Exception as error:  # the site's classes may raise anything
        raise Unreadable(f"unpickling it raised {type(error).__name__}") from error


def _complete(envelope: Envelope, pickled: bytes | memoryview, ours: bool) -> None:
    """Make the message whole; what we stored ourselves has a Message-ID and Date if it is to have them."""
    envelope.created = naive_local(envelope.created)
    if isinstance(envelope.email, EmailMessage):
        mend(envelope.email)
        if not ours:
            identify(envelope.email, pickled, created_epoch(envelope.created, envelope.extra))


def naive_local(created: Any) -> datetime:
    """Give the local time; 0.1.2 cannot compare an aware one."""
    if not isinstance(created, datetime):
        raise TypeError(f"created must be a datetime, not {type(created).__name__}")
    return created.astimezone().replace(tzinfo=None) if created.tzinfo else created
