"""Build new Django messages from the records of an unsigned payload."""

from __future__ import annotations

from collections.abc import Callable
from email.charset import Charset
from email.message import Message
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.module_loading import import_string

from ...errors import UnknownClass, Unreadable, interrupts
from .machine import Name, Record
from .mime import CHARSET, PARTS, read_charset, read_part
from .values import plain, scalar, state, text

_MODULE = "django.core.mail.message"
_MESSAGES: dict[Name, type[EmailMessage]] = {
    Name(_MODULE, "EmailMessage"): EmailMessage,
    Name(_MODULE, "EmailMultiAlternatives"): EmailMultiAlternatives,
}
_ATTACHMENT = Name(_MODULE, "EmailAttachment")
_ALTERNATIVE = Name(_MODULE, "EmailAlternative")

#: Attributes that every message has; old Django releases lack some of the others.
_REQUIRED = {"subject", "body", "from_email", "to"}
#: Attributes to skip: a connection belongs to the process that queued the message.
_SKIPPED = {"connection", "_connection"}


def read_message(value: Any, trusted: bool = False) -> EmailMessage:
    """Build a message of one of Django's own classes or, if the payload is trusted, of a site's class."""
    if not isinstance(value, Record):
        raise Unreadable("its message is not an object")
    message_class = _MESSAGES.get(value.maker) or _site_class(value.maker, trusted)
    given = {name: item for name, item in state(value).items() if name not in _SKIPPED}
    if not given.keys() >= _REQUIRED:
        raise Unreadable("its message lacks a required attribute")
    message = message_class.__new__(message_class)
    for name, item in given.items():
        vars(message)[name] = _get_reader(message_class, name)(item)
    return message


def _site_class(maker: Name, trusted: bool) -> type[EmailMessage]:
    if not trusted:
        raise Unreadable("the class of its message is not one of Django's own")
    path = f"{maker.module}.{maker.name}"
    try:
        site_class: type[EmailMessage] = import_string(path)
    except interrupts():
        raise
    except Exception as error:  # a site's module may raise any exception
        raise UnknownClass(f"{path} cannot be imported: {type(error).__name__}") from error
    return site_class


def _get_reader(message_class: type[EmailMessage], name: str) -> Callable[[Any], Any]:
    """Return the function that reads an attribute; attributes unknown to Django are plain data."""
    if name in _READERS:
        return _READERS[name]
    if name.startswith("__") or callable(getattr(message_class, name, None)):
        raise Unreadable("its message has an attribute with the name of a method")
    return plain


def _items(value: Any) -> list[Any]:
    if type(value) not in (list, tuple):
        raise Unreadable("its message has an attribute that should be a list")
    return list(value)


def _addresses(value: Any) -> list[Any]:
    return [_address(item) for item in _items(value)]


def _address(value: Any) -> str | bytes | None:
    """Read an address: text, or None or bytes, which Django accepts too."""
    return scalar(value) if value is None or type(value) is bytes else text(value)


def _headers(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Unreadable("its message has headers that are not a dict")
    return {text(name): scalar(item) for name, item in value.items()}


def _attachments(value: Any) -> list[Any]:
    return [_attachment(item) for item in _items(value)]


def _attachment(value: Any) -> Message | tuple[Any, ...]:
    if isinstance(value, Record) and value.maker in PARTS:
        return read_part(value)
    return _attachment_members(*_members(value, _ATTACHMENT))


def _attachment_members(filename: Any, content: Any, mimetype: Any = None) -> tuple[Any, ...]:
    return scalar(filename), _content(content), scalar(mimetype)


def _content(value: Any) -> str | bytes | Message | EmailMessage:
    """Read the content of an attachment: text, bytes, or (for message/rfc822) a message."""
    if isinstance(value, Record) and value.maker in PARTS:
        return read_part(value)
    if isinstance(value, Record) and value.maker in _MESSAGES:
        return read_message(value)
    return _data(value)


def _data(value: Any) -> str | bytes:
    """Read text or bytes; a Python 2 str may be either, so it stays bytes."""
    return bytes(value) if isinstance(value, bytes) else text(value)


def _alternatives(value: Any) -> list[tuple[str | bytes, str]]:
    return [
        (_data(content), text(mimetype))
        for content, mimetype in (_members(item, _ALTERNATIVE) for item in _items(value))
    ]


def _members(value: Any, maker: Name) -> list[Any]:
    """Read a tuple or, as Django 5.2 and later write it, a named tuple."""
    return _items(value.arguments if isinstance(value, Record) and value.maker == maker else value)


def _encoding(value: Any) -> str | Charset | None:
    return read_charset(value) if isinstance(value, Record) and value.maker == CHARSET else scalar(value)


#: By attribute, the function that checks and copies its value.
_READERS: dict[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("subject", "body"), scalar),
    "from_email": _address,
    **dict.fromkeys(("to", "cc", "bcc", "reply_to"), _addresses),
    **dict.fromkeys(("content_subtype", "mixed_subtype", "alternative_subtype"), text),
    "extra_headers": _headers,
    "attachments": _attachments,
    "alternatives": _alternatives,
    "encoding": _encoding,
}
