"""The envelope around a queued message, and its bytes.

The payload is a pickle of 0.1.2's dict ``{"email": message, "created": naive local datetime, **extra}``, then a
trailer that 0.1.2 ignores (``signature``). Of ``extra``, one key is ours (``Meta``); all others are the site's.
Only a pickle that is signed is unpickled; any other is read as inert data (``legacy``).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from io import BytesIO
from typing import Any

from django.core.mail import EmailMessage

from ..errors import UnknownClass, Unreadable, interrupts
from ..settings import conf
from . import identity, legacy, signature
from .compat import STAND_INS, upgrade_message
from .lazy import LAZY_TEXT, pickle_with_text
from .meta import ERROR_LENGTH, META_KEY, Meta, id_of, latest_epoch

__all__ = [
    "ERROR_LENGTH",
    "META_KEY",
    "PROTOCOL",
    "Envelope",
    "Meta",
    "dumps",
    "id_of_unopened",
    "latest_epoch",
    "loads",
    "naive_local",
    "sign",
]

#: 0.1.2 reads it on every Python 3.
PROTOCOL = 4
#: What a pickle of this protocol begins with.
_BEGINNING = b"\x80\x04"


def id_of_unopened(payload: bytes) -> str:
    """Return the id of a message that is not to be opened, or cannot be: the payload is read as inert data."""
    try:
        stored = legacy.peek(bytes(signature.detach(payload)[0])).get(META_KEY)
        return Meta.read({META_KEY: stored}, payload).id
    except Unreadable:
        return id_of(payload)


@dataclass
class Envelope:
    """A message and what is stored with it."""

    email: Any
    #: When it was queued, in naive local time, as 0.1.2 has it.
    created: datetime
    #: What the site gave to ``send_messages()``, and under META_KEY what Meta has written.
    extra: dict[str, Any] = field(default_factory=dict)
    #: That, as loads() has read it.
    meta: Meta = field(default_factory=lambda: Meta(""))


def dumps(envelope: Envelope) -> bytes:
    """Serialise an envelope and sign it. Raises whatever pickling its message raises."""
    content = {"email": envelope.email, "created": naive_local(envelope.created), **envelope.extra}
    buffer = BytesIO()
    try:
        pickle.Pickler(buffer, PROTOCOL).dump(content)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - perhaps a lazy text, whose function cannot be pickled
        return signature.append(pickle_with_text(content, PROTOCOL))
    with buffer.getbuffer() as pickled:  # no copy: an attachment may be big
        has_lazy_text, trailer = LAZY_TEXT.search(pickled), signature.trailer(pickled)
    if has_lazy_text:
        return signature.append(pickle_with_text(content, PROTOCOL))
    buffer.write(trailer)
    return buffer.getvalue()


def sign(payload: bytes) -> bytes:
    """Vouch for a payload that somebody else wrote: what it names will be imported, what it calls will run."""
    pickled, _ = signature.detach(payload)
    return signature.append(pickled)


def loads(payload: bytes, keys: Sequence[bytes] | None = None) -> Envelope:
    """Open a payload. Raises Unreadable when it holds no message, UnknownClass when it may do so elsewhere.

    ``keys``: what signature.keys() returns, for those who open many.
    """
    if not isinstance(payload, bytes):
        raise Unreadable("it is not bytes")
    pickled, signed = signature.detach(payload)
    if signed is not None:
        signature.verify(pickled, signed, keys)
        content = _unpickled(payload, pickled)
    elif conf.MAIL_QUEUE_UNSIGNED == "quarantine":
        raise Unreadable("it has no signature, and MAIL_QUEUE_UNSIGNED is 'quarantine'")
    else:
        content = legacy.read(payload)
    if not isinstance(content, dict) or content.get("email") is None:
        raise Unreadable("it is not a dict with a message")
    meta = Meta.read(content, payload)
    envelope = Envelope(content.pop("email"), content.pop("created", None), content, meta)
    try:
        _complete(envelope, pickled, ours=signed is not None and META_KEY in content)
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - the message may be of a site's class, its attributes anything
        raise Unreadable(f"making its message whole raised {type(error).__name__}") from None
    return envelope


class _Unpickler(pickle.Unpickler):
    """Raises UnknownClass for a class that cannot be imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except interrupts():
            raise
        except Exception as error:  # the site's module may raise anything
            if (module, name) in STAND_INS:
                return STAND_INS[module, name]
            raise UnknownClass(f"{module}.{name} cannot be imported: {type(error).__name__}") from error


def _unpickled(payload: bytes, pickled: bytes | memoryview) -> Any:
    """Unpickle what is verified; the trailer that stands behind the end of the pickle is so as well."""
    if not payload.startswith(_BEGINNING) and legacy.written_by_python2(payload):
        return legacy.read(bytes(pickled), trusted=True)
    try:
        return pickle.loads(payload)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - the site's classes may raise anything
        return _unpickled_with_stand_ins(payload)


def _unpickled_with_stand_ins(payload: bytes) -> Any:
    """Unpickle it once more, to put something in the place of a class that is gone, or to say which one is missing."""
    try:
        return _Unpickler(BytesIO(payload)).load()
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # the site's classes may raise anything
        raise Unreadable(f"unpickling it raised {type(error).__name__}") from error


def _complete(envelope: Envelope, pickled: bytes | memoryview, ours: bool) -> None:
    """Make the message whole; what we stored ourselves has a Message-ID and Date if it is to have them."""
    envelope.created = naive_local(envelope.created)
    if isinstance(envelope.email, EmailMessage):
        upgrade_message(envelope.email)
        if not ours:
            identity.derive(envelope.email, pickled, envelope.meta.epoch(envelope.created))


def naive_local(created: Any) -> datetime:
    """Return the local time; 0.1.2 cannot compare an aware one."""
    if not isinstance(created, datetime):
        raise TypeError(f"created must be a datetime, not {type(created).__name__}")
    return created.astimezone().replace(tzinfo=None) if created.tzinfo else created
