"""Pickle what Django can send, although pickle alone cannot, or not without loss.

All of it can be unpickled by the standard library, and so by 0.1.2, too.
"""

from __future__ import annotations

import copy
import copyreg
import pickle
import re
from io import BytesIO
from typing import Any

from django.core.mail import EmailMessage
from django.utils.functional import Promise

from ..errors import interrupts
from .compat import CONNECTION, remove_connection

#: The pickle protocol that 0.1.2 can read on every Python 3.
PROTOCOL = 4
#: Found in every pickle that contains a lazy text of Django's.
_LAZY_TEXT = re.compile(rb"_lazy_proxy_unpickle")


class _ThoroughPickler(pickle.Pickler):
    """Stores lazy text as text, memoryviews as bytes, and messages without their connections."""

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, Promise):
            # A drain does not know the sender's language.
            return str, (str(obj),)
        if isinstance(obj, memoryview):
            return bytes, (bytes(obj),)
        if isinstance(obj, EmailMessage) and vars(obj).get(CONNECTION) is not None:
            duplicate = copy.copy(obj)
            remove_connection(duplicate)
            return duplicate.__reduce_ex__(PROTOCOL)
        if isinstance(obj, dict) and _has_default_reduce(type(obj)):
            return _reduce_dict(obj)
        return NotImplemented


def _has_default_reduce(kind: type) -> bool:
    return all(getattr(kind, name) is getattr(object, name) for name in ("__reduce_ex__", "__reduce__")) and not any(
        hasattr(kind, name) for name in ("__setstate__", "__getnewargs__", "__getnewargs_ex__")
    )


def _reduce_dict(obj: dict[Any, Any]) -> tuple[Any, ...]:
    """Reduce an object of a subclass of dict to its items as dict stores them.

    By default, pickle reads them by an overridden items(), and writes them by an overridden __setitem__() before the
    object has its attributes.
    """
    items = dict(dict.items(obj))
    return copyreg._reconstructor, (type(obj), dict, items), object.__reduce_ex__(obj, 2)[2]  # type: ignore[attr-defined]


def dump(content: dict[str, Any]) -> BytesIO:
    """Pickle the content of an envelope into a buffer. Any exception raised while pickling propagates."""
    message = content["email"]
    if getattr(message, "attachments", None) or type(getattr(message, "extra_headers", None)) is not dict:
        return dump_thoroughly(content)
    buffer = BytesIO()
    try:
        pickle.Pickler(buffer, PROTOCOL).dump(content)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - perhaps the thorough pickler can
        return dump_thoroughly(content)
    with buffer.getbuffer() as pickled:
        has_lazy_text = _LAZY_TEXT.search(pickled)
    return dump_thoroughly(content) if has_lazy_text else buffer


def dump_thoroughly(content: Any) -> BytesIO:
    """Pickle any object into a buffer, with the thorough pickler, which takes longer."""
    buffer = BytesIO()
    _ThoroughPickler(buffer, PROTOCOL).dump(content)
    return buffer


def name_unpicklable(message: Any, fields: dict[str, Any]) -> str | None:
    """Name the attribute of a message, or the keyword argument, that cannot be pickled; None if each of them can."""
    for name, value in getattr(message, "__dict__", {}).items():
        if not _can_pickle(value) and not name.endswith("connection"):
            return f"message.{name}{_subscript(value)}"
    return next((f"kwargs[{name!r}]" for name, value in fields.items() if not _can_pickle(value)), None)


def _subscript(value: Any) -> str:
    """Return the subscript of the first item of a list, tuple or dict that cannot be pickled, such as "[0]"."""
    items: Any = ()
    if isinstance(value, (list, tuple)):
        items = enumerate(value)
    elif isinstance(value, dict):
        items = value.items()
    return next((f"[{key!r}]" for key, item in items if not _can_pickle(item)), "")


def _can_pickle(value: Any) -> bool:
    try:
        dump_thoroughly(value)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's class may raise any exception
        return False
    return True
