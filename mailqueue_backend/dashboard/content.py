"""Take a mail apart, to show it. Everything is bounded, and nothing that cannot be shown raises more than Unreadable.

Attachments of Django's own messages are not composed, and so not parsed: an attached mail may come from anybody.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from email.header import decode_header
from email.message import Message as MIMEPart
from typing import Any, NamedTuple

from django.core.mail import EmailMessage, EmailMultiAlternatives

from ..errors import Unreadable
from ..inspection.export import guarded
from ..inspection.messages import Message
from ..inspection.text import printable

#: Maximum size of a message that is shown, in bytes.
MESSAGE_BYTES = 50_000_000
#: Maximum number of headers and parts, and length of a header, in characters.
HEADERS, PARTS, HEADER_LENGTH = 100, 200, 1000
#: Maximum length of a file name, in characters.
NAME_LENGTH = 100
#: Headers about the encoding, which a reader does not need.
_TECHNICAL = {"content-type", "content-transfer-encoding", "mime-version"}


class Part(NamedTuple):
    """A text or an attachment."""

    name: str
    content_type: str
    content: bytes
    #: The Content-ID by which HTML shows an image; "" if there is none.
    cid: str = ""
    charset: str = "utf-8"

    @property
    def text(self) -> str:
        """The decoded content."""
        try:
            return self.content.decode(self.charset, "replace")
        except (LookupError, ValueError):
            return self.content.decode("utf-8", "replace")


class Content(NamedTuple):
    """What a mail consists of."""

    headers: list[tuple[str, str]]
    text: Part | None
    html: Part | None
    attachments: list[Part]


def content_of(message: Message) -> Content:
    """Take a message apart. Raises Unreadable, which says why it cannot be shown."""
    size = len(message.entry.payload)
    if size > MESSAGE_BYTES:
        raise Unreadable(f"it takes {size:,} bytes, and at most {MESSAGE_BYTES:,} are shown; see mail_queue export")
    if message.envelope is None:
        raise Unreadable(message.problem)
    email = message.envelope.email
    return guarded(lambda: _content(*_without_attachments(email)))


def _content(email: Any, attachments: list[Part]) -> Content:
    mail = email.message()
    parts = [_part(leaf) for leaf in _leaves(mail)]
    text = next((part for part in parts if part.content_type == "text/plain" and not part.name), None)
    html = next((part for part in parts if part.content_type == "text/html" and not part.name), None)
    others = [part for part in parts if part is not text and part is not html]
    return Content(list(_headers(mail)), text, html, [*others, *attachments][:PARTS])


def _without_attachments(email: Any) -> tuple[Any, list[Part]]:
    """Return a copy of a message without its attachments of text and bytes, and these."""
    # Any other class may compose its attachments in a way of its own.
    if type(email) not in (EmailMessage, EmailMultiAlternatives):
        return email, []
    simple = [each for each in email.attachments if isinstance(each, tuple) and isinstance(each[1], (str, bytes))]
    email = copy.copy(email)
    email.attachments = [each for each in email.attachments if each not in simple]
    return email, [_simple_part(*each) for each in simple]


def _simple_part(name: object, content: str | bytes, mimetype: object) -> Part:
    raw = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return Part(file_name(name), str(mimetype or "application/octet-stream"), raw)


def _leaves(mail: MIMEPart) -> Iterator[MIMEPart]:
    pending = [mail]
    for _ in range(PARTS):
        if not pending:
            return
        part = pending.pop()
        inner: Any = part.get_payload()
        if part.get_content_maintype() == "multipart" and isinstance(inner, list):
            pending.extend(reversed(inner))
        else:
            yield part


def _part(leaf: MIMEPart) -> Part:
    name = leaf.get_filename()
    return Part(
        "" if name is None and leaf.get_content_disposition() != "attachment" else file_name(name),
        leaf.get_content_type(),
        _bytes(leaf),
        str(leaf.get("Content-ID", "")).strip(" \t\r\n<>"),
        leaf.get_content_charset("utf-8"),
    )


def _bytes(leaf: MIMEPart) -> bytes:
    inner: Any = leaf.get_payload()
    if isinstance(inner, list):  # an attached message
        return b"".join(bytes(each.as_bytes()) for each in inner)
    decoded: Any = leaf.get_payload(decode=True)
    return decoded or b""


def _headers(mail: MIMEPart) -> Iterator[tuple[str, str]]:
    for name, value in mail.items()[:HEADERS]:
        if name.lower() not in _TECHNICAL:
            yield printable(name), printable(_decode(str(value)))[:HEADER_LENGTH]


def _decode(value: str) -> str:
    """Decode RFC 2047's encoded words."""
    try:
        words = decode_header("".join(value.splitlines()))
        return "".join(_word(*each) for each in words)
    except (LookupError, ValueError):
        return value


def _word(word: str | bytes, charset: str | None) -> str:
    return word if isinstance(word, str) else word.decode(charset or "ascii", "replace")


def file_name(name: object) -> str:
    """Return the name of an attachment, without a directory and control characters."""
    last = re.split(r"[/\\]", str(name or ""))[-1]
    return "".join(filter(str.isprintable, last)).strip(" .")[-NAME_LENGTH:] or "attachment"
