"""What happens to a message before it is written: the queue gets a copy of its own, complete and valid."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar

from django.core.mail import DNS_NAME, EmailMessage, make_msgid
from django.utils.timezone import get_current_timezone

from ..delivery.session import in_delivery
from ..envelope import Meta, identity, latest_epoch, naive_local
from ..envelope.compat import CONNECTION
from ..errors import ConfigurationError, UnstorableMessage, interrupts
from ..settings import conf

Message = TypeVar("Message")


def serialise(backend: Any, messages: Sequence[Any], kwargs: dict[str, Any]) -> list[bytes]:
    """Return the payloads of messages, by the backend's hooks; ``kwargs`` are stored with each.

    Raises UnstorableMessage for a message that cannot be pickled, and Django's ValueError for a newline in a header.
    """
    delivered = getattr(in_delivery, "message", None)
    payloads = []
    for number, message in enumerate(messages, start=1):
        if delivered is not None and message is delivered:
            # It would never arrive, and never expire.
            raise ConfigurationError("The backend that delivers what is queued queues it again: no mail would arrive.")
        if isinstance(message, EmailMessage):
            refuse_broken_headers(message)
        given = kwargs.get("created")
        created = naive_local(given) if given else datetime.now()
        meta = Meta.new(created, latest_epoch(created) if given else created.timestamp(), backend.alias)
        fields = {**kwargs, "created": created}
        meta.write(fields)
        try:
            duplicate = backend._make_pickleable(message)
            if backend.stamps_headers and isinstance(duplicate, EmailMessage):
                duplicate = stamped(duplicate, message)
            payloads.append(backend._wrap(duplicate, **fields))
        except interrupts():
            raise
        except Exception as error:  # pickling runs the code of whatever hangs on the message
            raise UnstorableMessage(
                f"Message {number} of {len(messages)} cannot be queued, since it cannot be pickled: {error}"
            ) from error
    return payloads


def detached_copy(message: Message) -> Message:
    """Copy a message without its connection and with a header dict of its own."""
    duplicate = copy.copy(message)
    attributes = vars(duplicate)
    if "connection" in attributes or "_connection" in attributes:
        attributes.pop("connection", None)
        attributes.pop("_connection", None)
        attributes[CONNECTION] = None
    if "extra_headers" in attributes:
        attributes["extra_headers"] = dict(attributes["extra_headers"] or {})
    return duplicate


def stamped(message: EmailMessage, original: EmailMessage) -> EmailMessage:
    """Add the Message-ID and Date that all tries will have, where there is none, and return the message.

    The sender's own message stays as it is: it is copied if ``message`` is still the same, or shares its headers.
    """
    if message is original or message.extra_headers is original.extra_headers:
        message = detached_copy(message)
    identity.add_missing(message, partial(make_msgid, domain=DNS_NAME), _date)
    return message


def _date() -> str:
    zone = get_current_timezone() if conf.EMAIL_USE_LOCALTIME else timezone.utc
    return format_datetime(datetime.now(zone))


def refuse_broken_headers(message: EmailMessage) -> None:
    """Raise Django's own ValueError for a newline in a header now, while the sender can hear it."""
    values = [message.subject, message.from_email, *message.to, *message.cc, *message.bcc, *message.reply_to]
    for name, value in message.extra_headers.items():
        values += (name, value)
    text = "\0".join(map(str, values))
    if text.splitlines() == [text]:
        return
    EmailMessage(
        subject=message.subject,
        from_email=message.from_email,
        to=message.to,
        cc=[*message.cc, *message.bcc],
        reply_to=message.reply_to,
        headers=message.extra_headers,
    ).message()
