"""The Message-ID and Date by which all tries of a message are the same message."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import formatdate, parseaddr
from hashlib import sha256
from typing import Any

from django.core.mail import EmailMessage

from ..settings import conf

_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,63}")


def own_headers(message: Any) -> dict[str, Any]:
    """Return the headers that a message sets by itself, their names in lower case."""
    return {str(name).lower(): value for name, value in getattr(message, "extra_headers", {}).items()}


def add_missing(message: EmailMessage, message_id: Callable[[], str], date: Callable[[], str]) -> None:
    """Set the Message-ID and the Date of a message, each where it has none."""
    names = own_headers(message)
    if "message-id" not in names:
        message.extra_headers["Message-ID"] = message_id()
    if "date" not in names:
        message.extra_headers["Date"] = date()


def derive(message: EmailMessage, pickled: bytes | memoryview, epoch: float) -> None:
    """Give a message that was queued without them a Message-ID and a Date, made from its pickle and its age.

    They are the same however often, and on whatever machine, the same payload is opened and sent.
    """
    add_missing(
        message,
        lambda: f"<{sha256(pickled).hexdigest()[:32]}@{_domain(message)}>",
        lambda: formatdate(epoch, localtime=conf.EMAIL_USE_LOCALTIME),
    )


def _domain(message: EmailMessage) -> str:
    _, at, domain = parseaddr(str(message.from_email))[1].rpartition("@")
    return domain if at and _DOMAIN.fullmatch(domain) else "localhost"
