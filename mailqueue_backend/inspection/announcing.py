"""Announce what an operator does with a message, as a drain announces what becomes of it."""

from __future__ import annotations

import time

from django.dispatch import Signal

from ..delivery.events import Announcer, Event
from ..mail.base import QueueingMixin
from ..mail.mailers import DEFAULT_ALIAS
from ..signals import message_discarded, message_requeued
from .messages import Message


def announce_discard(message: Message, reason: str) -> None:
    """Announce that a message is given up."""
    event = _event(message, "discarded", message_discarded, reason)
    event.refused = dict.fromkeys(message.recipients, reason)
    _announce(event)


def announce_revival(message: Message, reason: str) -> None:
    """Announce that a dead message is back in the queue."""
    event = _event(message, "requeued", message_requeued, reason)
    event.remaining, event.reasons = list(message.recipients), dict.fromkeys(message.recipients, reason)
    _announce(event)


def _event(message: Message, status: str, signal: Signal, reason: str) -> Event:
    envelope = message.envelope
    return Event(
        status=status,
        signal=signal,
        sender=QueueingMixin,
        queue=message.queue.name,
        id=message.id,
        mailer=(envelope and envelope.meta.using) or DEFAULT_ALIAS,
        message=envelope and envelope.email,
        message_id=message.message_id,
        attempts=message.attempts,
        error=reason,
        age=0 if message.created is None else time.time() - message.created,
    )


def _announce(event: Event) -> None:
    announcer = Announcer()
    announcer.announce(event)
    announcer.announce_group([event])
