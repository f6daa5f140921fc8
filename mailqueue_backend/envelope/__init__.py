"""The envelope around a queued message, and its bytes.

A payload is a pickle of 0.1.2's dict ``{"email": message, "created": naive local datetime, **extra}``, followed by a
trailer that 0.1.2 ignores (``signature``). One key of ``extra`` is ours (``Meta``); all others are the site's.
Only a signed pickle is unpickled; any other is read as inert data (``legacy``).
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
from .meta import ERROR_LENGTH, META_KEY, Meta, id_of, latest_epoch
from .pickling import PROTOCOL, dump

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
    "meta_of_unopened",
    "naive_local",
    "sign",
]

#: The first bytes of every pickle of this protocol.
_PICKLE_START = b"\x80\x04"


def id_of_unopened(payload: bytes) -> str:
    """Return the id of a message without unpickling it."""
    meta = meta_of_unopened(payload)
    return id_of(payload) if meta is None else meta.id


def meta_of_unopened(payload: bytes) -> Meta | None:
    """Return our record of a message without unpickling it: the payload is read as inert data, signed or not.

    None: it cannot be read in this way.
    """
    try:
        stored = legacy.peek(bytes(signature.detach(payload)[0])).get(META_KEY)
        return Meta.read({META_KEY: stored}, payload)
    except Unreadable:
        return None


@dataclass
class Envelope:
    """A message and the data stored with it."""

    email: Any
    #: When the message was queued, in naive local time, as in 0.1.2.
    created: datetime
    #: The site's keyword arguments to ``send_messages()``, and our own record under META_KEY.
    extra: dict[str, Any] = field(default_factory=dict)
    #: Our own record, as read by loads().
    meta: Meta = field(default_factory=lambda: Meta(""))


def dumps(envelope: Envelope) -> bytes:
    """Serialise and sign an envelope. Any exception raised while pickling the message propagates."""
    content = {"email": envelope.email, "created": naive_local(envelope.created), **envelope.extra}
    buffer = dump(content)
    with buffer.getbuffer() as pickled:  # A view: an attachment may be too big to copy.
        trailer = signature.trailer(pickled)
    buffer.write(trailer)
    return buffer.getvalue()


def sign(payload: bytes) -> bytes:
    """Sign a foreign payload. Only sign what you trust: opening it imports and calls whatever its pickle names."""
    pickled, _ = signature.detach(payload)
    return signature.append(pickled)


def loads(payload: bytes, keys: Sequence[bytes] | None = None) -> Envelope:
    """Open a payload.

    Raises Unreadable when it holds no readable message, and UnknownClass when a class of it cannot be imported here.
    ``keys`` is the result of signature.keys(), for a caller that opens many payloads.
    """
    if not isinstance(payload, bytes):
        raise Unreadable("the payload is not bytes")
    pickled, signed = signature.detach(payload)
    if signed is not None:
        signature.verify(pickled, signed, keys)
        content = _unpickle(payload, pickled)
    elif conf.MAIL_QUEUE_UNSIGNED == "quarantine":
        raise Unreadable("the payload has no signature, and MAIL_QUEUE_UNSIGNED is 'quarantine'")
    else:
        content = legacy.read(payload)
    if not isinstance(content, dict) or content.get("email") is None:
        raise Unreadable("the payload is not a dict with a message")
    meta = Meta.read(content, payload)
    envelope = Envelope(content.pop("email"), content.pop("created", None), content, meta)
    try:
        _upgrade(envelope, pickled, is_ours=signed is not None and META_KEY in content)
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - a site's own message class may have any attributes
        raise Unreadable(f"upgrading its message raised {type(error).__name__}") from None
    return envelope


class _Unpickler(pickle.Unpickler):
    """Finds our stand-ins, and raises UnknownClass for any other class that cannot be imported."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except interrupts():
            raise
        except Exception as error:  # a site's module may raise any exception
            if (module, name) in STAND_INS:
                return STAND_INS[module, name]
            raise UnknownClass(f"{module}.{name} cannot be imported: {type(error).__name__}") from error


def _unpickle(payload: bytes, pickled: bytes | memoryview) -> Any:
    """Unpickle a verified payload; pickle ignores the trailer behind the end of the pickle."""
    if not payload.startswith(_PICKLE_START) and legacy.written_by_python2(payload):
        return legacy.read(bytes(pickled), trusted=True)
    try:
        return pickle.loads(payload)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's class may raise any exception
        return _unpickle_with_stand_ins(payload)


def _unpickle_with_stand_ins(payload: bytes) -> Any:
    """Unpickle again with our stand-ins. Raises UnknownClass for any other class that cannot be imported."""
    try:
        return _Unpickler(BytesIO(payload)).load()
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # a site's class may raise any exception
        raise Unreadable(f"unpickling it raised {type(error).__name__}") from error


def _upgrade(envelope: Envelope, pickled: bytes | memoryview, is_ours: bool) -> None:
    """Adapt the message to this Django. If it is not ours, derive a missing Message-ID and Date."""
    envelope.created = naive_local(envelope.created)
    if isinstance(envelope.email, EmailMessage):
        upgrade_message(envelope.email)
        if not is_ours:
            identity.derive(envelope.email, pickled, envelope.meta.epoch(envelope.created))


def naive_local(created: Any) -> datetime:
    """Convert to naive local time; 0.1.2 cannot compare aware datetimes."""
    if not isinstance(created, datetime):
        raise TypeError(f"created must be a datetime, not {type(created).__name__}")
    return created.astimezone().replace(tzinfo=None) if created.tzinfo else created
