"""Plain data out of what the machine built: text, numbers, dates, and containers of them."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from struct import Struct
from typing import Any

from django.utils import translation

from ...errors import Unreadable
from .machine import Name, Record
from .opcodes import ByteString

#: Data that holds no other.
_LEAVES = {type(None), bool, int, float, str, bytes}
#: The types of text. Our own pickles hold a lazy text as a str that is made from a str.
_TEXTS = {
    Name("builtins", "str"),
    *(Name("__builtin__", name) for name in ("str", "unicode")),
    *(Name("django.utils.safestring", name) for name in ("SafeString", "SafeText", "SafeUnicode", "SafeBytes")),
}
_DATETIME = Name("datetime", "datetime")
_LAZY = Name("django.utils.functional", "_lazy_proxy_unpickle")

#: Each translation's function and the types of its arguments.
_TRANSLATIONS: dict[str, tuple[Callable[..., str], dict[str, type]]] = {
    "gettext": (translation.gettext, {"message": str}),
    "ngettext": (translation.ngettext, {"singular": str, "plural": str, "number": int}),
    "pgettext": (translation.pgettext, {"context": str, "message": str}),
    "npgettext": (translation.npgettext, {"context": str, "singular": str, "plural": str, "number": int}),
}
# Django < 4.0 had these names too.
_TRANSLATIONS["ugettext"] = _TRANSLATIONS["gettext"]
_TRANSLATIONS["ungettext"] = _TRANSLATIONS["ngettext"]

#: Year, month (and fold), day, hour, minute, second, and the three bytes of the microseconds.
_DATETIME_BYTES = Struct(">HBBBBBBH")


def plain(value: Any) -> Any:
    """Copy plain data; a str of Python 2 becomes text if it is UTF-8. Raises Unreadable at anything else."""
    if type(value) in _LEAVES:
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
    """Copy plain data that holds no other."""
    if isinstance(value, (list, tuple, dict)):
        raise Unreadable("it holds a container where a message has a single value")
    return plain(value)


def text(value: Any) -> str:
    """Read a text in whatever dress; a lazy translation is translated."""
    if isinstance(value, bytes):
        value = _decoded(value)
    if isinstance(value, str):
        return value
    if isinstance(value, Record) and value.maker in _TEXTS and not value.state:
        return text(*value.arguments)
    if isinstance(value, Record) and value.maker == _LAZY:
        return _translated(*value.arguments)
    raise Unreadable("it holds something other than plain data")


def state(record: Record) -> dict[str, Any]:
    """Give an object's attributes by name, their values as the machine built them."""
    if type(record.state) is not dict:
        raise Unreadable("it holds an object whose state is not a dict")
    return {text(name): value for name, value in record.state.items()}


def _decoded(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return bytes(value)


def _datetime(packed: bytes) -> datetime:
    """Read ten bytes. datetime itself would take them without a look at day, hour, minute and second."""
    year, month, day, hour, minute, second, high, low = _DATETIME_BYTES.unpack(packed)
    fold, month = divmod(month, 128)
    return datetime(year, month, day, hour, minute, second, high * 65536 + low, fold=fold)


def _translated(function: Name, arguments: tuple[Any, ...], keywords: dict[str, Any], *_: Name) -> str:
    if function.module != "django.utils.translation" or function.name not in _TRANSLATIONS:
        raise Unreadable("it holds a lazy text that is not a plain translation")
    translate, types = _TRANSLATIONS[function.name]
    if type(arguments) is not tuple or len(arguments) > len(types):
        raise Unreadable("it holds a translation with other arguments than a translation has")
    given = dict(zip(types, arguments, strict=False)) | {text(name): value for name, value in keywords.items()}
    return translate(**{name: text(given[name]) if kind is str else kind(given[name]) for name, kind in types.items()})
