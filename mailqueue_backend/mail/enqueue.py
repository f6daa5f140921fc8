"""Prepare messages for the queue: copy, validate, stamp, serialise and write them."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from datetime import datetime, timezone
from email.utils import format_datetime
from functools import partial
from operator import attrgetter
from typing import Any, NamedTuple, TypeVar

from django.core.mail import DNS_NAME, EmailMessage, make_msgid
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.utils.timezone import get_current_timezone

from ..delivery.events import Event, send_signal
from ..delivery.link import in_delivery
from ..envelope import Meta, identity, latest_epoch, naive_local
from ..envelope.compat import remove_connection
from ..envelope.headers import copy_headers
from ..envelope.identity import own_headers
from ..envelope.pickling import name_unpicklable
from ..errors import ConfigurationError, UnstorableMessage, interrupts
from ..queues.base import MessageQueue
from ..settings import conf
from ..signals import message_events, message_queued
from .mailers import DEFAULT_ALIAS
from .validation import refuse_unsendable

Message = TypeVar("Message")
#: Django's method.
_RECIPIENTS = EmailMessage.recipients
#: Returns the methods of an SMTP backend that decide what can be sent.
# Django < 6.0: prep_address() does not exist.
_methods = attrgetter("_send", "prep_address") if hasattr(SMTPBackend, "prep_address") else attrgetter("_send")
#: Those of Django.
_METHODS = _methods(SMTPBackend)


class Serialised(NamedTuple):
    """A message that is ready to be stored."""

    id: str
    #: The copy that is stored.
    message: Any
    payload: bytes


def serialise(backend: Any, messages: Sequence[Any], kwargs: dict[str, Any]) -> list[Serialised]:
    """Serialise messages with the backend's hooks; ``kwargs`` are stored with each.

    Raises UnstorableMessage for a message that cannot be pickled, and what refuse_unsendable() raises.
    """
    being_delivered = getattr(in_delivery, "message", None)
    stamps_headers, by_smtp = backend.stamps_headers, sends_like_django(backend)
    serialised = []
    for number, message in enumerate(messages, start=1):
        if being_delivered is not None and message is being_delivered:
            # It would be queued again by each drain, and never expire.
            raise ConfigurationError("The backend that delivers what is queued queues it again: no mail would arrive.")
        if isinstance(message, EmailMessage):
            refuse_unsendable(message, by_smtp)
        given = kwargs.get("created")
        created = naive_local(given) if given else datetime.now()
        meta = Meta.new(created, latest_epoch(created) if given else created.timestamp(), backend.alias)
        fields = {**kwargs, "created": created}
        meta.write(fields)
        duplicate = message
        try:
            duplicate = backend._make_pickleable(message)
            if stamps_headers and isinstance(duplicate, EmailMessage):
                duplicate = stamped(duplicate, message)
            serialised.append(Serialised(meta.id, duplicate, backend._wrap(duplicate, **fields)))
        except interrupts():
            raise
        except Exception as error:  # pickling runs the code of any object that is attached to the message
            culprit = name_unpicklable(duplicate, kwargs) or "it"
            raise UnstorableMessage(
                f"Message {number} of {len(messages)} cannot be queued, since {culprit} cannot be pickled: {error}"
            ) from error
    return serialised


def sends_like_django(backend: Any) -> bool:
    """Return whether Django's own code sends by SMTP; a site's own hook or method may send what Django does not."""
    sender = getattr(backend, "delivers_with", type(backend))
    return backend.stamps_headers and _methods(sender) == _METHODS and not backend._has_own_hook


def announce_queued(backend: Any, messages: Sequence[Serialised]) -> None:
    """Send the signals about messages that have just been stored."""
    if not (messages and (message_queued.has_listeners() or message_events.has_listeners())):
        return
    sender, events = type(backend), []
    for id, message, _ in messages:
        arguments = {
            "queue": backend.queue_name,
            "id": id,
            "mailer": backend.alias or DEFAULT_ALIAS,
            "message": message,
            "message_id": str(own_headers(message).get("message-id", "")),
        }
        events.append(Event(status="queued", signal=message_queued, sender=sender, **arguments))
        send_signal(message_queued, sender, arguments)
    send_signal(message_events, sender, {"events": events})


def write(queue: MessageQueue, payloads: Sequence[bytes]) -> None:
    """Write payloads, all or none. Raises UnstorableMessage for one that is too large for the queue."""
    for number, payload in enumerate(payloads, start=1):
        if problem := queue.explain_size(payload):
            raise UnstorableMessage(f"Message {number} of {len(payloads)} cannot be queued: {problem}")
    queue.write_many(*payloads)


def has_recipients(message: Any) -> bool:
    """Return whether Django would send a message: to whom a message of another kind goes is not known."""
    if not isinstance(message, EmailMessage):
        return True
    # An overridden recipients() may change the message.
    return bool((message if type(message).recipients is _RECIPIENTS else copy.copy(message)).recipients())


def detached_copy(message: Message) -> Message:
    """Return a copy of a message without its connection and with a copy of its headers."""
    duplicate = copy.copy(message)
    attributes = vars(duplicate)
    if attributes.get("connection") is not None or attributes.get("_connection") is not None:
        remove_connection(duplicate)
    if "extra_headers" in attributes:
        headers = attributes["extra_headers"]
        attributes["extra_headers"] = headers.copy() if type(headers) is dict else copy_headers(headers)
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
