"""Hold up the deliveries of a queue on all machines: pause() and resume().

The reason is the payload of an ordinary queue of the same engine, whose name is NAME + "_PAUSED". A queue is paused
while that one is not empty.
"""

from __future__ import annotations

from ..errors import ConfigurationError, QueueUnavailable
from .base import MessageQueue, State

#: Maximum length of a reason that is shown, in characters.
REASON_LENGTH = 200
#: Reasons that are looked at: there are several if two processes pause a queue at once.
_LOOKED_AT = 10
#: Deferred: written before a clock was set back. Reserved: resume() is taking it, or was killed meanwhile.
_STATES: tuple[State, ...] = ("due", "deferred", "reserved")


def pause(queue: MessageQueue, reason: str) -> None:
    """Pause a queue, or replace the reason for which it is paused.

    Raises QueueUnavailable, and ConfigurationError if the engine cannot do this.
    """
    reasons = _reasons(queue)
    replaced = len(reasons)
    reasons.write(reason.encode("utf-8", "replace"))
    reasons.read_many(replaced)


def resume(queue: MessageQueue) -> bool:
    """End the pause of a queue; return False if it is not paused. Raises the same errors as pause()."""
    reasons = _reasons(queue)
    was_paused = False
    while reasons.read() is not None:
        was_paused = True
    if reasons.counts().reserved:
        raise QueueUnavailable(
            f"The queue {queue.name} stays paused, since another process is resuming it, or was killed while it did. "
            "Resume it again in a minute."
        )
    return was_paused


def paused_reason(queue: MessageQueue) -> str | None:
    """Return the reason for which a queue is paused, as one line; None if it is not paused.

    "": it is paused without a reason, or its engine cannot look at one. Raises QueueUnavailable.
    """
    if not queue.pausable:
        return None
    reasons = _reasons(queue)
    counts = reasons.counts()
    if not counts.waiting + counts.reserved:
        return None
    if not reasons.browsable:
        return ""
    entries = [entry for state in _STATES for entry in reasons.browse(state, _LOOKED_AT)]
    return _in_one_line(entries[-1].payload) if entries else None


def _reasons(queue: MessageQueue) -> MessageQueue:
    if not queue.pausable:
        raise ConfigurationError(
            f"The queue {queue.name} cannot be paused: its module may know only one queue, so the reason has no place. "
            "Stop the processes that run process_mail_queue."
        )
    return queue.sibling(queue.paused_name)


def _in_one_line(payload: bytes) -> str:
    """Decode a reason, without the control characters that a terminal would obey."""
    text = payload[: 4 * REASON_LENGTH].decode("utf-8", "replace")
    printable = "".join(character if character.isprintable() else " " for character in text)
    return " ".join(printable.split())[:REASON_LENGTH]
