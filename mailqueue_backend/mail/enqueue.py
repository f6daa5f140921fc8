"""Prepare messages for the queue: copy, validate, stamp and serialise them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import partial
from typing import Any, TypeVar

from django.core.mail import DNS_NAME, EmailMessage, make_msgid
from django.utils.timezone import get_current_timezone

from ..delivery.link import in_delivery
from ..envelope import Meta, identity, latest_epoch, naive_local
from ..envelope.compat import CONNECTION
from ..errors import ConfigurationError, UnstorableMessage, interrupts
from ..settings import conf

Message = TypeVar("Message")


def serialise(backend: Any, messages: Sequence[Any], kwargs: dict[str, Any]) -> list[bytes]:
    """Serialise messages with the backend's hooks, and return their payloads; ``kwargs`` are stored with each.

    Raises UnstorableMessage for a message that cannot be pickled, and Django's ValueError for a newline in a header.
    """
    being_delivered = getattr(in_delivery, "message", None)
    payloads = []
    for number, message in enumerate(messages, start=1):
        if being_delivered is not None and message is being_delivered:
            # It would be queued again by each drain, and never expire.
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
        except Exception as error:  # pickling runs the code of any object that is attached to the message
            raise UnstorableMessage(
                f"Message {number} of {len(messages)} cannot be queued, since it cannot be pickled: {error}"
            ) from error
    return payloads


def detached_copy(message: Message) -> Message:
    """Return a copy of a message without its connection and with a copy of its headers."""
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
    """Return the message with a Message-ID and a Date, which each retry will send again; keep existing ones.

    The caller's ``original`` is not changed: if ``message`` is the same object, or shares its headers, it is copied.
    """
    if message is original or message.extra_headers is original.extra_headers:
        message = detached_copy(message)
    identity.add_missing(message, partial(make_msgid, domain=DNS_NAME), _date)
    return message


def _date() -> str:
    zone = get_current_timezone() if conf.EMAIL_USE_LOCALTIME else timezone.utc
    return format_datetime(datetime.now(zone))


def refuse_broken_headers(message: EmailMessage) -> None:
    """Raise Django's ValueError for a newline in a header: the caller can handle it, and a drain could not."""
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
