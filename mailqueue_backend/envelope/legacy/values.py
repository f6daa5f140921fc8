"""Convert values of the machine to plain data: text, numbers, dates, and containers of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from struct import Struct
from typing import Any

from django.utils import translation

from ...errors import Unreadable
from .machine import Name, Record
from .opcodes import ByteString

#: Types that contain no other values.
_SCALARS = {type(None), bool, int, float, str, bytes}
#: The classes of text. Our own pickles contain a lazy text as a call of ``str`` with a str.
_TEXTS = {
    Name("builtins", "str"),
    *(Name("__builtin__", name) for name in ("str", "unicode")),
    *(Name("django.utils.safestring", name) for name in ("SafeString", "SafeText", "SafeUnicode", "SafeBytes")),
}
_DATETIME = Name("datetime", "datetime")
_LAZY = Name("django.utils.functional", "_lazy_proxy_unpickle")

#: By name, the translation functions and the types of their arguments.
_TRANSLATIONS: dict[str, tuple[Callable[..., str], dict[str, type]]] = {
    "gettext": (translation.gettext, {"message": str}),
    "ngettext": (translation.ngettext, {"singular": str, "plural": str, "number": int}),
    "pgettext": (translation.pgettext, {"context": str, "message": str}),
    "npgettext": (translation.npgettext, {"context": str, "singular": str, "plural": str, "number": int}),
}
# Django < 4.0: aliases of the above.
_TRANSLATIONS["ugettext"] = _TRANSLATIONS["gettext"]
_TRANSLATIONS["ungettext"] = _TRANSLATIONS["ngettext"]

#: Year, month (its high bit is the fold), day, hour, minute, second, and three bytes of microseconds.
_DATETIME_BYTES = Struct(">HBBBBBBH")


def plain(value: Any) -> Any:
    """Copy plain data; decode a Python 2 str if it is UTF-8. Raises Unreadable for anything else."""
    if type(value) in _SCALARS:
        return value
    if type(value) is ByteString:
        return _decoded(value)
    if type(value) in (list, tuple):
        return type(value)(plain(item) for item in value)
    if type(value) is dict:
        return {plain(key): plain(item) for key, item in value.items()}
    if isinstance(value, Record) and value.maker == _DATETIME:
        return _datetime(*value.arguments)
    return text(value)


def scalar(value: Any) -> Any:
    """Copy a value that is not a container. Raises Unreadable for a container."""
    if isinstance(value, (list, tuple, dict)):
        raise Unreadable("the payload holds a container where a message has a single value")
    return plain(value)


def text(value: Any) -> str:
    """Read a text of any class as a plain str; translate a lazy text."""
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Record) and value.maker in _TEXTS and not value.state:
        return text(*value.arguments)
    if isinstance(value, Record) and value.maker == _LAZY:
        return _translated(*value.arguments)
    raise Unreadable("the payload holds something other than plain data")


def state(record: Record) -> dict[str, Any]:
    """Return an object's attributes by name; their values are still those of the machine."""
    if type(record.state) is not dict:
        raise Unreadable("the payload holds an object whose state is not a dict")
    return {text(name): value for name, value in record.state.items()}


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytes(value)


def _datetime(packed: bytes) -> datetime:
    """Unpack a pickled datetime. datetime(bytes) would not validate day, hour, minute and second."""
    year, month, day, hour, minute, second, high, low = _DATETIME_BYTES.unpack(packed)
    fold, month = divmod(month, 128)
    return datetime(year, month, day, hour, minute, second, high * 65536 + low, fold=fold)


def _translated(function: Name, arguments: tuple[Any, ...], keywords: dict[str, Any], *_: Name) -> str:
    if function.module != "django.utils.translation" or function.name not in _TRANSLATIONS:
        raise Unreadable("the payload holds a lazy text that is not a plain translation")
    translate, types = _TRANSLATIONS[function.name]
    if type(arguments) is not tuple or len(arguments) > len(types):
        raise Unreadable("the payload holds a translation with too many arguments")
    given = dict(zip(types, arguments, strict=False)) | {text(name): value for name, value in keywords.items()}
    return translate(**{name: text(given[name]) if kind is str else kind(given[name]) for name, kind in types.items()})
