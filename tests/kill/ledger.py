"""The ledger: the fate of each message, and the faults of a run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from mailqueue_backend.delivery.feed import READY
from tests.smtp import Stored

_END = re.compile(rb"The end of (message \d+)\.")


@dataclass
class Ledger:
    """The figures of one run: accepted = delivered + waiting + dead + lost."""

    #: Messages that send() accepted.
    accepted: int
    #: Accepted messages that arrived at least once.
    delivered: int
    #: Other accepted messages that are still in the queue.
    waiting: int
    #: Other accepted messages that are in the dead queue.
    dead: int
    #: Accepted messages that are nowhere.
    lost: int
    #: Arrivals beyond the first of each message.
    copies: int
    #: Arrivals that were truncated, or that are no accepted message.
    unexpected: int
    #: Messages that arrived with several Message-IDs or Dates, plus Message-IDs shared by several messages.
    renamed: int
    #: Processes that were killed while delivering.
    kills: int = 0
    #: Connections that were open when their processes were killed.
    connections: int = 0
    #: Duration of the run.
    seconds: float = 0
    #: Errors of drains that failed without being killed.
    failures: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> int:
        """The copies that the kills explain: one per open connection, and the delivered but unsettled messages."""
        return self.connections + READY * self.kills

    def faults(self) -> list[str]:
        """Return a description of each fault; an empty list if there is none."""
        found = [f"{name}: {getattr(self, name)}" for name in ("lost", "unexpected", "renamed") if getattr(self, name)]
        if self.copies > self.allowed:
            found.append(
                f"copies: {self.copies}, more than the {self.connections} connections that were cut"
                f" and {READY} for each of the {self.kills} kills"
            )
        return found + self.failures

    def __str__(self) -> str:
        return (
            f"accepted {self.accepted} = delivered {self.delivered} + waiting {self.waiting} + dead {self.dead}"
            f" + lost {self.lost}; copies {self.copies} (at most {self.allowed}), unexpected {self.unexpected},"
            f" renamed {self.renamed}; {self.kills} kills, {self.seconds:.0f} s"
        )


def subject(number: int) -> str:
    """Return the subject of the numbered message of a run."""
    return f"message {number}"


def body(number: int) -> str:
    """Return the body of the numbered message of a run."""
    return f"{'A line of mail. ' * 4}\n" * 20 + f"The end of {subject(number)}.\n"


def draw_up(accepted: int, arrivals: list[Stored], waiting: Iterable[bytes], dead: Iterable[bytes]) -> Ledger:
    """Compare the first ``accepted`` messages with the arrivals and with the payloads in the queues."""
    sent = {subject(number) for number in range(accepted)}
    arrived = Counter(filter(None, map(_name, arrivals)))
    missing = sent - arrived.keys()
    waits = missing & set(map(_end, waiting))
    died = (missing - waits) & set(map(_end, dead))
    return Ledger(
        accepted=accepted,
        delivered=len(sent & arrived.keys()),
        waiting=len(waits),
        dead=len(died),
        lost=len(missing - waits - died),
        copies=sum(arrived[one] - 1 for one in sent & arrived.keys()),
        unexpected=len(arrivals) - sum(arrived[one] for one in sent),
        renamed=_renamed(arrivals),
    )


def _name(arrival: Stored) -> str:
    """Return the subject of the arrival; "" if its body does not end as the body of that message does."""
    return arrival.subject if arrival.subject == _end(arrival.content) else ""


def _end(text: bytes) -> str:
    found = _END.search(text)
    return found[1].decode() if found else ""


def _renamed(arrivals: list[Stored]) -> int:
    """Count deviations from one Message-ID and Date per message, and one message per Message-ID."""
    headers = [arrival.message for arrival in arrivals]
    stamps = {(one["Subject"], one["Message-ID"], one["Date"]) for one in headers}
    subjects, identities, _ = (set(column) for column in zip(("", "", ""), *stamps, strict=True))
    return 2 * (len(stamps) + 1) - len(subjects) - len(identities)
