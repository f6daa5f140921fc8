"""The Message-ID and Date of a message that was queued without."""

from __future__ import annotations

import re
from email.utils import formatdate, parseaddr
from hashlib import sha256

from django.core.mail import EmailMessage

from ..settings import conf

_DOMAIN = re.compile(r"[A-Za-z0-9.-]{1,63}")


def identify(message: EmailMessage, pickled: bytes | memoryview, epoch: float) -> None:
    """Give a message what it lacks of the two: made from the pickle and the time when it was queued.

    So they are the same however often, and on whatever machine, the same payload is opened and sent.
    """
    names = {str(name).lower() for name in message.extra_headers}
    if "message-id" not in names:
        message.extra_headers["Message-ID"] = f"<{sha256(pickled).hexdigest()[:32]}@{_domain(message)}>"
    if "date" not in names:
        message.extra_headers["Date"] = formatdate(epoch, localtime=conf.EMAIL_USE_LOCALTIME)


def _domain(message: EmailMessage) -> str:
    _, at, domain = parseaddr(str(message.from_email))[1].rpartition("@")
    return domain if at and _DOMAIN.fullmatch(domain) else "localhost"
