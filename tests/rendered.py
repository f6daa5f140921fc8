"""Summaries of rendered messages as plain data, in the format of the .json files in tests/payloads."""

from __future__ import annotations

import email
import email.policy
from email.header import decode_header, make_header
from email.message import Message
from hashlib import sha256
from typing import Any

from django.core.mail import EmailMessage

#: Prefixes of headers that vary, or that the summary of the body covers.
LEFT_OUT = ("date", "message-id", "mime-version", "content-")


def as_bytes(message: EmailMessage) -> bytes:
    """Render a message as the SMTP backend does."""
    try:
        return message.message(policy=email.policy.SMTP).as_bytes()  # type: ignore[call-arg,unused-ignore]
    except TypeError:  # Django < 6.0: no policy
        return message.message().as_bytes()


def summary(message: EmailMessage) -> dict[str, Any]:
    """Summarise a message, rendered by the installed Django."""
    return summary_of(as_bytes(message), message.recipients())


def summary_of(rendered: bytes, recipients: list[str]) -> dict[str, Any]:
    """Summarise a rendered message and its recipients."""
    parsed = email.message_from_bytes(rendered)
    return {"headers": _headers(parsed), "recipients": list(recipients), "body": _part(parsed)}


def _headers(part: Message) -> list[list[str]]:
    named = [(name.lower(), str(value)) for name, value in part.items()]
    return sorted([name, _decoded(value)] for name, value in named if not name.startswith(LEFT_OUT))


def _decoded(value: str) -> str:
    return " ".join(str(make_header(decode_header(value))).split())


def _part(part: Message) -> dict[str, Any]:
    found: dict[str, Any] = {"ctype": part.get_content_type()}
    if disposition := part.get_content_disposition():
        found["disp"] = disposition
    if filename := part.get_filename():
        found["filename"] = filename
    if found["ctype"] == "message/rfc822":
        found["inner"] = [_headers(each) for each in part.get_payload()]  # type: ignore[arg-type,union-attr]
    return found | _content(part)


def _content(part: Message) -> dict[str, Any]:
    if part.is_multipart():
        return {"parts": [_part(each) for each in part.get_payload()]}  # type: ignore[arg-type,union-attr]
    content: bytes = part.get_payload(decode=True)  # type: ignore[assignment]
    if part.get_content_maintype() == "text":
        text = content.decode(part.get_content_charset() or "ascii", "replace")
        return {"text": text.replace("\r\n", "\n").rstrip("\n")}
    return {"len": len(content), "sha": sha256(content).hexdigest()[:16]}
