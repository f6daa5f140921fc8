"""Rehearse a drain: open and render what is queued, without reserving, connecting or sending anything.

It finds what the code that is installed now could not deliver: a class that was removed, a key that was lost, a mailer
that is gone. It does not call a site's own hooks, nor its _send(), which may send.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from django.core.mail import EmailMessage

from ..delivery.words import in_words
from ..delivery.worker import MAX_DELIVERIES, why_unroutable
from ..envelope import Envelope, compat, id_of_unopened, loads
from ..envelope.signature import keys
from ..errors import ConfigurationError, MailQueueError, Unreadable, interrupts
from ..queues.base import Entry, MessageQueue, State
from ..transport.rendering import with_encoded_attachments
from .enqueue import sends_like_django
from .validation import prepare_address

#: Messages that are looked at at a time, since they may be big.
PAGE = 10
_STATES: tuple[State, ...] = ("due", "deferred")


class Rehearsed(NamedTuple):
    """One queued message."""

    queue: str
    id: str
    #: Why it could not be delivered; "": it could.
    problem: str


def rehearse(backend: Any) -> Iterator[Rehearsed]:
    """Yield each message of a backend's queue that is due or deferred.

    Raises ConfigurationError if the queue cannot list its messages, and QueueUnavailable.
    """
    queue, mailers = backend.que, backend._mailers()
    if not queue.browsable:
        raise ConfigurationError(
            f"The queue {queue.name} cannot list its messages without removing them, so they cannot be tried: "
            f"{type(queue).__module__} does not support it."
        )
    signing_keys = keys()
    for entry in _browse(queue):
        yield Rehearsed(queue.name, id_of_unopened(entry.payload), _find_problem(entry, mailers, signing_keys))


def _browse(queue: MessageQueue) -> Iterator[Entry]:
    for state in _STATES:
        after: Entry | None = None
        while page := queue.browse(state, PAGE, after):
            yield from page
            after = page[-1]


def _find_problem(entry: Entry, mailers: dict[str | None, Any], signing_keys: Sequence[bytes]) -> str:
    try:
        if entry.deliveries >= MAX_DELIVERIES:  # opening it may end this process, too
            raise Unreadable(f"it was reserved by {MAX_DELIVERIES} processes that died")
        envelope = loads(entry.payload, signing_keys)
        backend = mailers.get(envelope.meta.using)
        if backend is None:
            return why_unroutable(envelope.meta.using)
        return "" if _render(envelope, backend) else "nobody to send it to"
    except MailQueueError as error:
        return str(error)
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - rendering runs the code of a site's own classes
        return in_words(error)


def _render(envelope: Envelope, backend: Any) -> bool:
    """Prepare a message and its addresses as the drain does; return False if it has no recipients."""
    message, remaining = envelope.email, envelope.meta.remaining
    if not isinstance(message, EmailMessage):
        return True  # only the site's own code knows how to deliver it
    recipients = message.recipients() if remaining is None else remaining
    if not recipients:
        return False
    if sends_like_django(backend):
        for address in (message.from_email, *recipients):
            prepare_address(address, message.encoding or "utf-8")
    compat.render(with_encoded_attachments(message))
    return True
