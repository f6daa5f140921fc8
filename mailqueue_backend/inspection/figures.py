"""The figures of a queue: its counts, the age of its oldest message, its last error, whether it is paused."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, NamedTuple

from ..delivery.clock import describe_future
from ..errors import ConfigurationError
from ..mail.mailers import backends_to_drain, why_nothing_is_drained
from ..queues import open_queue
from ..queues.base import Counts, MessageQueue, State
from ..queues.paused import paused_reason
from .listing import list_messages
from .messages import Message, as_iso

#: Messages that are opened, at most, in each of the two states that wait.
LOOKED_AT = 100
_WAITING: tuple[State, ...] = ("due", "deferred")


class Figures(NamedTuple):
    """The figures of one queue."""

    queue: str
    counts: Counts
    #: When the oldest waiting message among the first ones was created, in seconds since 1970; None: none, or unknown.
    oldest: float | None = None
    #: The error of the last of these messages that has failed.
    last_error: str = ""
    #: The reason; None: not paused.
    paused: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return what ``mail_queue status --json`` prints."""
        states = {state: getattr(self.counts, state) for state in ("due", "deferred", "reserved", "dead")}
        more = {"oldest": as_iso(self.oldest), "last_error": self.last_error, "paused": self.paused}
        return {"queue": self.queue, **states, **more}


def queues_of_site(using: str | None = None, name: str | None = None) -> list[MessageQueue]:
    """Return the queues that process_mail_queue drains, or that of the mailer ``using``, or that of this name.

    Raises ConfigurationError if there is none.
    """
    if name is not None:
        return [open_queue(name)]
    queues: list[MessageQueue] = [backend.que for backend in backends_to_drain(using)]
    if not queues:
        raise ConfigurationError(f"{why_nothing_is_drained()} To look at a queue nevertheless, write --queue NAME.")
    return queues


def look_at(queue: MessageQueue) -> Figures:
    """Return the figures of a queue. Opens at most LOOKED_AT due and as many deferred messages.

    Raises QueueUnavailable.
    """
    counts, paused = queue.counts(), paused_reason(queue)
    if not queue.browsable:
        return Figures(queue.name, counts, paused=paused)
    first = [_brief(message) for state in _WAITING if getattr(counts, state) for message in _first(queue, state)]
    times = [since for since, _ in first if since is not None]
    errors = [error for _, error in first if error]
    return Figures(queue.name, counts, min(times, default=None), errors[-1] if errors else "", paused)


def warnings_about(queue: MessageQueue, counts: Counts) -> list[str]:
    """Return a sentence for each reason why the queue may lose or delay mail. Raises QueueUnavailable."""
    return [sentence for sentence in (*queue.warnings(), describe_future(queue, counts)) if sentence]


def _first(queue: MessageQueue, state: State) -> Iterable[Message]:
    return islice(list_messages(queue, [state]), LOOKED_AT)


def _brief(message: Message) -> tuple[float | None, str]:
    """Return since when a message waits, and its error: not the message, which may be big."""
    since = message.created
    if since is None and message.entry.state == "due":
        since = message.due
    return since, message.last_error
