"""The signature behind a pickle, which proves that its writer knew SECRET_KEY.

The layout is ``pickle + b"MQB1" + HMAC-SHA256(pickle)``. An unpickler stops at the end of the pickle, so 0.1.2
never sees the trailer. The trailer has a fixed size, so it is found and verified before the pickle is parsed.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from django.utils.encoding import force_bytes

from ..errors import Unreadable
from ..settings import conf

#: The first bytes of the trailer.
MAGIC = b"MQB1"
#: Size of the trailer in bytes.
TRAILER_SIZE = len(MAGIC) + 32
#: Distinguishes these signatures from all others made with SECRET_KEY.
SALT = "mailqueue_backend.signature"


def append(pickled: bytes | memoryview) -> bytes:
    """Return a pickle followed by its trailer."""
    return b"".join((pickled, trailer(pickled)))


def trailer(pickled: bytes | memoryview) -> bytes:
    """Return the trailer of a pickle."""
    return MAGIC + hmac.digest(_key(conf.SECRET_KEY), pickled, "sha256")


def detach(payload: bytes) -> tuple[bytes | memoryview, bytes | None]:
    """Split a payload into pickle and signature; the signature is None if there is no trailer.

    The pickle of a signed payload is a view, to avoid a copy of a big attachment.
    """
    if payload[-TRAILER_SIZE:].startswith(MAGIC):
        return memoryview(payload)[:-TRAILER_SIZE], payload[-TRAILER_SIZE + len(MAGIC) :]
    return payload, None


def keys() -> list[bytes]:
    """Return the accepted keys: that of SECRET_KEY, then those of SECRET_KEY_FALLBACKS."""
    # An empty fallback, as from an unset environment variable, is no secret: anyone could sign with it.
    return [_key(secret) for secret in (conf.SECRET_KEY, *conf.SECRET_KEY_FALLBACKS) if secret]


def verify(pickled: bytes | memoryview, signature: bytes, accepted: Sequence[bytes] | None = None) -> None:
    """Raise Unreadable unless one of the ``accepted`` keys, by default keys(), made this signature of this pickle."""
    for key in keys() if accepted is None else accepted:
        if hmac.compare_digest(signature, hmac.digest(key, pickled, "sha256")):
            return
    raise Unreadable("the payload is damaged, or was not signed with SECRET_KEY or one of SECRET_KEY_FALLBACKS")


@lru_cache(maxsize=16)
def _key(secret: str | bytes) -> bytes:
    """Derive the key as django.utils.crypto.salted_hmac() does, but only once per secret."""
    return sha256(force_bytes(SALT) + force_bytes(secret)).digest()
