"""Big attachments, rendered in little memory.

Django and the email package take up to nine times the size of an attachment to render it. Here they render the
message with a token in its place; the content is encoded straight into the bytes of the message.
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

#: Bytes from which on an attachment is big.
BIG = 64 * 1024
#: Bytes of a token; its base64 is one line, which occurs nowhere else.
_TOKEN = 48
#: Characters of base64 in a line, and the bytes of content that are encoded at once.
_LINE = 76
_PIECE = _LINE // 4 * 3 * 1000


def _methods() -> tuple[Any, Any]:
    return EmailMessage.message, vars(EmailBackend)["_send"]


#: Between these two, nobody but Django sees a token; somebody else's may sign what is rendered.
_METHODS = _methods()


def with_encoded_attachments(message: Any) -> Any:
    """Copy a message so that it is rendered in little memory; return it as it is where that does not work."""
    if type(message) not in (EmailMessage, EmailMultiAlternatives) or _methods() != _METHODS:
        return message
    contents: dict[bytes, bytes] = {}
    attachments = [_with_token(attachment, contents) for attachment in message.attachments]
    if not contents:
        return message
    with_tokens = copy.copy(message)
    with_tokens.attachments = attachments
    # A second copy avoids a reference cycle, so the attachment is freed immediately.
    duplicate = copy.copy(with_tokens)
    vars(duplicate)["message"] = lambda **kwargs: _Rendered(with_tokens.message(**kwargs), contents)
    return duplicate


def _with_token(attachment: Any, contents: dict[bytes, bytes]) -> Any:
    """Put a token in the place of a big content that is encoded in base64, and keep that under the token's base64."""
    if not isinstance(attachment, tuple) or len(attachment) != 3:
        return attachment
    filename, content, mimetype = attachment
    if not isinstance(content, bytes) or len(content) < BIG or str(mimetype).startswith(("text/", "message/", "None")):
        return attachment
    token = secrets.token_bytes(_TOKEN)
    contents[b2a_base64(token, newline=False)] = content
    # Django < 5.2: a plain tuple.
    return getattr(attachment, "_make", tuple)((filename, token, mimetype))


class _Rendered:
    """What Django has rendered, with the tokens in it."""

    def __init__(self, message: Any, contents: dict[bytes, bytes]) -> None:
        self._message = message
        self._contents = contents

    def as_bytes(self, *args: Any, **kwargs: Any) -> bytes:
        """Return the message with the contents in it."""
        rendered: bytes = self._message.as_bytes(*args, **kwargs)
        end_of_line = b"\r\n" if b"\r\n" in rendered else b"\n"
        whole = _reserved(len(rendered) + sum(_size(content, end_of_line) for content in self._contents.values()))
        position = 0
        for token, content in self._contents.items():
            found = rendered.index(token, position)
            whole.write(rendered[position:found])
            whole.writelines(_base64(content, end_of_line))
            position = found + len(token)
        whole.write(rendered[position:])
        whole.truncate()
        return whole.getvalue()


def _reserved(size: int) -> BytesIO:
    """Make a buffer that need not grow, since one that does is there twice at times."""
    buffer = BytesIO()
    buffer.seek(size)
    buffer.write(b"\0")
    buffer.seek(0)
    return buffer


def _size(content: bytes, end_of_line: bytes) -> int:
    """Return the length of a content in base64, or a little less."""
    encoded = (len(content) + 2) // 3 * 4
    return encoded + encoded // _LINE * len(end_of_line)


def _base64(content: bytes, end_of_line: bytes) -> Iterator[bytes]:
    """Encode in lines, without the end of the last one."""
    for start in range(0, len(content), _PIECE):
        encoded = b2a_base64(content[start : start + _PIECE], newline=False)
        lines = [encoded[begin : begin + _LINE] for begin in range(0, len(encoded), _LINE)]
        yield (end_of_line if start else b"") + end_of_line.join(lines)
