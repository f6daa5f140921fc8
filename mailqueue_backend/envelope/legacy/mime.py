"""Build new MIME parts of the standard library, which a site may have attached."""

from __future__ import annotations

from email.charset import BASE64, QP, SHORTEST, Charset
from email.header import Header
from email.message import Message
from email.mime.application import MIMEApplication
from email.mime.audio import MIMEAudio
from email.mime.base import MIMEBase
from email.mime.image import MIMEImage
from email.mime.message import MIMEMessage
from email.mime.multipart import MIMEMultipart
from email.mime.nonmultipart import MIMENonMultipart
from email.mime.text import MIMEText
from email.policy import compat32
from typing import Any

from ...errors import Unreadable
from .machine import Name, Record
from .values import plain, scalar, state, text

#: The supported classes of MIME parts.
PARTS: dict[Name, type[Message[Any, Any]]] = {
    Name(part.__module__, part.__name__): part
    for part in (
        Message,
        MIMEApplication,
        MIMEAudio,
        MIMEBase,
        MIMEImage,
        MIMEMessage,
        MIMEMultipart,
        MIMENonMultipart,
        MIMEText,
    )
}
CHARSET = Name("email.charset", "Charset")
_HEADER = Name("email.header", "Header")
_COMPAT32 = Name("email._policybase", "Compat32")


def read_part(record: Record) -> Message:
    """Build a MIME part. Raises Unreadable if an attribute is unknown or the policy is not compat32."""
    part_class = PARTS[record.maker]
    part = part_class.__new__(part_class)
    Message.__init__(part, policy=compat32)
    for name, value in state(record).items():
        if name not in _READERS:
            raise Unreadable("the payload holds a MIME part with an unknown attribute")
        vars(part)[name] = _READERS[name](value)
    return part


def read_charset(record: Record) -> Charset:
    """Build a Charset. Raises Unreadable if one of its encodings is unknown."""
    given = state(record)
    charset = Charset(text(given["input_charset"]))
    for name in ("output_charset", "input_codec", "output_codec"):
        setattr(charset, name, None if given[name] is None else text(given[name]))
    for name in ("header_encoding", "body_encoding"):
        if given[name] not in (None, BASE64, QP, SHORTEST):
            raise Unreadable("the payload holds a charset with an unknown encoding")
        setattr(charset, name, given[name])
    return charset


def _read_header(record: Record) -> Header:
    header = Header()
    for chunk, charset in state(record)["_chunks"]:
        header.append(chunk if isinstance(chunk, bytes) else text(chunk), read_charset(charset))
    return header


def _header_value(value: Any) -> str | Header:
    if isinstance(value, Record) and value.maker == _HEADER:
        return _read_header(value)
    return text(value)


def _headers(value: Any) -> list[tuple[str, str | Header]]:
    return [(text(name), _header_value(item)) for name, item in value]


def _payload(value: Any) -> Any:
    """Read the parts of a multipart, or a body; Python 3 represents its non-ASCII bytes as surrogates."""
    if isinstance(value, list):
        return [read_part(part) for part in value]
    return value.decode("ascii", "surrogateescape") if isinstance(value, bytes) else scalar(value)


def _charset(value: Any) -> Any:
    return read_charset(value) if isinstance(value, Record) and value.maker == CHARSET else scalar(value)


def _policy(value: Any) -> Any:
    if not isinstance(value, Record) or value.maker != _COMPAT32:
        raise Unreadable("the payload holds a MIME part whose policy is not compat32")
    return compat32


#: By attribute, the function that checks and copies its value.
_READERS = {
    "policy": _policy,
    "_headers": _headers,
    "_payload": _payload,
    "_charset": _charset,
    "_unixfrom": scalar,
    "_default_type": text,
    "preamble": scalar,
    "epilogue": scalar,
    "defects": plain,
}
