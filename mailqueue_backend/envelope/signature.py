"""The trailer behind a pickle that says who wrote it: somebody who knows SECRET_KEY.

The layout is ``pickle + b"MQB1" + HMAC-SHA256(pickle)``. Whatever reads a pickle stops at its end, so 0.1.2
never sees the trailer. It is found at its fixed place from the end, before a byte of the pickle is looked at.
"""

from __future__ import annotations

import hmac
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256

from django.utils.encoding import force_bytes

from ..errors import Unreadable
from ..settings import conf

#: Where the trailer begins.
MAGIC = b"MQB1"
#: Size of the trailer in bytes.
TRAILER_SIZE = len(MAGIC) + 32
#: Keeps these signatures apart from all others that are made with SECRET_KEY.
SALT = "mailqueue_backend.signature"


def append(pickled: bytes | memoryview) -> bytes:
    """Put a trailer behind a pickle."""
    return b"".join((pickled, trailer(pickled)))


def trailer(pickled: bytes | memoryview) -> bytes:
    """Return the trailer of a pickle."""
    return MAGIC + hmac.digest(_key(conf.SECRET_KEY), pickled, "sha256")


def detach(payload: bytes) -> tuple[bytes | memoryview, bytes | None]:
    """Part a payload into pickle and signature; the signature is None when there is no trailer.

    The pickle before a signature is a view: a copy of a big attachment would be one too many.
    """
    if payload[-TRAILER_SIZE:].startswith(MAGIC):
        return memoryview(payload)[:-TRAILER_SIZE], payload[-TRAILER_SIZE + len(MAGIC) :]
    return payload, None


def keys() -> list[bytes]:
    """Return the keys that verify: that of SECRET_KEY, then those of its fallbacks."""
    # A fallback that comes from an unset environment variable is no key: everybody knows it.
    return [_key(secret) for secret in (conf.SECRET_KEY, *conf.SECRET_KEY_FALLBACKS) if secret]


def verify(pickled: bytes | memoryview, signature: bytes, known: Sequence[bytes] | None = None) -> None:
    """Raise Unreadable unless the signature was made over this pickle with one of the keys() that are ``known``."""
    for key in keys() if known is None else known:
        if hmac.compare_digest(signature, hmac.digest(key, pickled, "sha256")):
            return
    raise Unreadable("its signature was not made with SECRET_KEY or one of SECRET_KEY_FALLBACKS, or it is damaged")


@lru_cache(maxsize=16)
def _key(secret: str | bytes) -> bytes:
    """Derive the key that django.utils.crypto.salted_hmac() would use, once instead of for each message."""
    return sha256(force_bytes(SALT) + force_bytes(secret)).digest()
