"""The figures of a drain, and the outcome of one message, as ``_send_queued_messages()`` returns it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple


class Outcome(NamedTuple):
    """The outcome of one message; equal to 0.1.2's bare tuples."""

    sent: bool
    requeue: bool | None


SENT = Outcome(True, None)
NOQUEUE = Outcome(False, False)
DOQUEUE = Outcome(False, True)


class DrainResult(NamedTuple):
    """What ``send_queued_messages()`` returns, as in 0.1.2."""

    sent: int
    discarded: int
    #: Number of messages that were due when the drain began.
    length: int


@dataclass
class Report:
    """The figures of a drain; ``length`` is the number of messages that were due when it began."""

    length: int = 0
    sent: int = 0
    #: Failed, and back in the queue.
    requeued: int = 0
    #: Given up, and in the discard log.
    discarded: int = 0
    #: Set aside in the dead queue.
    buried: int = 0
    #: Recipients who were given up while others have the message.
    recipients_given_up: int = 0
    #: Why deliveries are held up; "": for no reason that is known; None: they are not.
    paused: str | None = None
    #: Why messages wait for the next run, although it is their turn: the server, the login, a sender.
    reasons_to_wait: list[str] = field(default_factory=list)

    @property
    def tried(self) -> int:
        """Number of messages that the drain has finished."""
        return self.sent + self.requeued + self.discarded + self.buried

    @property
    def result(self) -> DrainResult:
        """The three figures that 0.1.2 returned."""
        return DrainResult(self.sent, self.discarded, self.length)
