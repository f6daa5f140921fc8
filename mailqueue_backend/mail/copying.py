"""What happens to a message before it is pickled: the queue gets a copy of its own, complete and valid."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from datetime import datetime, timezone
from email.utils import format_datetime
from itertools import chain
from typing import Any, TypeVar

from django.core.mail import DNS_NAME, EmailMessage, make_msgid
from django.utils.timezone import get_current_timezone

from ..mending import CONNECTION
from ..settings import conf

Message = TypeVar("Message")


def detached_copy(message: Message) -> Message:
    """Copy a message without its connection and with a header dict of its own."""
    duplicate = copy.copy(message)
    attributes = vars(duplicate)
    if attributes.keys() & {"connection", "_connection"}:
        attributes.pop("connection", None)
        attributes.pop("_connection", None)
        attributes[CONNECTION] = None
    if "extra_headers" in attributes:
        attributes["extra_headers"] = dict(attributes["extra_headers"] or {})
    return duplicate


def stamped(message: EmailMessage) -> EmailMessage:
    """Copy a message, with the Message-ID and Date that all its tries will have where it has none."""
    duplicate = detached_copy(message)
    headers = duplicate.extra_headers
    names = {name.lower() for name in headers}
    if "message-id" not in names:
        headers["Message-ID"] = make_msgid(domain=DNS_NAME)
    if "date" not in names:
        zone = get_current_timezone() if conf.EMAIL_USE_LOCALTIME else timezone.utc
        headers["Date"] = format_datetime(datetime.now(zone))
    return duplicate


def refuse_broken_headers(message: Any) -> None:
    """Let Django raise its own ValueError for a newline in a header now, while the sender can hear it."""
    if not isinstance(message, EmailMessage) or not any(map(_has_newline, _header_values(message))):
        return
    EmailMessage(
        subject=message.subject,
        from_email=message.from_email,
        to=message.to,
        cc=[*message.cc, *message.bcc],
        reply_to=message.reply_to,
        headers=message.extra_headers,
    ).message()


def _header_values(message: EmailMessage) -> Iterator[Any]:
    yield message.subject
    yield message.from_email
    yield from chain(message.to, message.cc, message.bcc, message.reply_to)
    yield from chain.from_iterable(message.extra_headers.items())


def _has_newline(value: Any) -> bool:
    text = str(value)
    return text.splitlines() != [text] and text != ""
