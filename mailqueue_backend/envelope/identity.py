"""The Message-ID and Date of a message, which stay the same over all delivery attempts."""

from __future__ import annotations

import re
from collections.abc import Callable
from email.utils import formatdate, parseaddr
from hashlib import sha256
from typing import Any

from django.core.mail import EmailMessage

from ..settings import conf
from .headers import with_header

#: A domain that may stand in a Message-ID, at most 63 characters long.
_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,63}")


def own_headers(message: Any) -> dict[str, Any]:
    """Return the headers set explicitly on a message, by their names in lower case."""
    headers = getattr(message, "extra_headers", None) or {}
    return {str(name).lower(): value for name, value in headers.items()}


def add_missing(message: EmailMessage, message_id: Callable[[], str], date: Callable[[], str]) -> None:
    """Set the Message-ID and the Date of a message, unless it has them already."""
    headers = message.extra_headers
    names = set(map(str.lower, map(str, headers)))
    for name, make in (("Message-ID", message_id), ("Date", date)):
        if name.lower() not in names:
            if type(headers) is dict:
                headers[name] = make()
            else:
                message.extra_headers = headers = with_header(headers, name, make())


def derive(message: EmailMessage, pickled: bytes | memoryview, epoch: float) -> None:
    """Set a missing Message-ID from the digest of the pickle, and a missing Date from ``epoch`` (seconds since 1970).

    Both are the same whenever and wherever the same payload is opened.
    """
    add_missing(
        message,
        lambda: f"<{sha256(pickled).hexdigest()[:32]}@{_domain(message)}>",
        lambda: formatdate(epoch, localtime=conf.EMAIL_USE_LOCALTIME),
    )


def _domain(message: EmailMessage) -> str:
    _, at, domain = parseaddr(str(message.from_email))[1].rpartition("@")
    return domain if at and _DOMAIN.fullmatch(domain) else "localhost"
