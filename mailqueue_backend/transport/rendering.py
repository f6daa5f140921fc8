"""Render messages with big attachments in little memory.

Django and the email package need up to nine times the size of an attachment to render it. So they render a message
with a short token as the content of the attachment, and the encoded content then replaces the token.
"""

from __future__ import annotations

import copy
import secrets
from binascii import b2a_base64
from collections.abc import Iterator
from io import BytesIO
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend

#: Minimum size of a big attachment, in bytes.
BIG = 64 * 1024
#: Size of a token in bytes. Its base64 fits on one line, which occurs nowhere else in the message.
_TOKEN = 48
#: Characters of base64 per line.
_LINE = 76
#: Bytes of content to encode at once: a thousand lines.
_CHUNK = _LINE // 4 * 3 * 1000


def _current_methods() -> tuple[Any, Any]:
    return EmailMessage.message, vars(EmailBackend)["_send"]


#: Django's own methods, which do not look into the rendered message. A patched one may, for instance to sign it, and
#: must not see a token.
_DJANGOS_METHODS = _current_methods()


def with_encoded_attachments(message: Any) -> Any:
    """Return a copy of a message that renders in little memory, or the message itself if that is not possible."""
    if type(message) not in (EmailMessage, EmailMultiAlternatives) or _current_methods() != _DJANGOS_METHODS:
        return message
    contents: dict[bytes, bytes] = {}
    attachments = [_with_token(attachment, contents) for attachment in message.attachments]
    if not contents:
        return message
    with_tokens = copy.copy(message)
    with_tokens.attachments = attachments
    # A second copy avoids a reference cycle, so the attachment is freed immediately.
    duplicate = copy.copy(with_tokens)
    vars(duplicate)["message"] = lambda **kwargs: _RenderedMessage(with_tokens.message(**kwargs), contents)
    return duplicate


def _with_token(attachment: Any, contents: dict[bytes, bytes]) -> Any:
    """Replace a big content to be encoded in base64 by a token; store it in ``contents`` by the token's base64."""
    if not isinstance(attachment, tuple) or len(attachment) != 3:
        return attachment
    filename, content, mimetype = attachment
    if not isinstance(content, bytes) or len(content) < BIG or str(mimetype).startswith(("text/", "message/", "None")):
        return attachment
    token = secrets.token_bytes(_TOKEN)
    contents[b2a_base64(token, newline=False)] = content
    # Django < 5.2: a plain tuple.
    return getattr(attachment, "_make", tuple)((filename, token, mimetype))


class _RenderedMessage:
    """A message as Django renders it, which replaces the tokens in as_bytes()."""

    def __init__(self, message: Any, contents: dict[bytes, bytes]) -> None:
        self._message = message
        self._contents = contents

    def as_bytes(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the rendered message with the encoded contents in place of the tokens."""
        rendered: bytes = self._message.as_bytes(*args, **kwargs)
        end_of_line = b"\r\n" if b"\r\n" in rendered else b"\n"
        encoded_size = sum(_encoded_size(content, end_of_line) for content in self._contents.values())
        result = _allocate_buffer(len(rendered) + encoded_size)
        position = 0
        for token, content in self._contents.items():
            found = rendered.index(token, position)
            result.write(rendered[position:found])
            result.writelines(_encode(content, end_of_line))
            position = found + len(token)
        result.write(rendered[position:])
        result.truncate()
        return result.getvalue()


def _allocate_buffer(size: int) -> BytesIO:
    """Return a buffer of this size: a buffer that grows is copied, and needs its memory twice."""
    buffer = BytesIO()
    buffer.seek(size)
    buffer.write(b"\0")
    buffer.seek(0)
    return buffer


def _encoded_size(content: bytes, end_of_line: bytes) -> int:
    """Return the size of a content in base64, in bytes: exact, or one line end too many."""
    encoded = (len(content) + 2) // 3 * 4
    return encoded + encoded // _LINE * len(end_of_line)


def _encode(content: bytes, end_of_line: bytes) -> Iterator[bytes]:
    """Encode in lines, without an end after the last line."""
    for start in range(0, len(content), _CHUNK):
        encoded = b2a_base64(content[start : start + _CHUNK], newline=False)
        lines = [encoded[begin : begin + _LINE] for begin in range(0, len(encoded), _LINE)]
        yield (end_of_line if start else b"") + end_of_line.join(lines)
