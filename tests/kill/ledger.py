"""The ledger: what became of each message, and what must not have."""

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

    #: Messages that send() took.
    accepted: int
    #: Of those: arrived, at least once.
    delivered: int
    #: Of the rest: still in the queue, or set aside.
    waiting: int
    dead: int
    #: Nowhere.
    lost: int
    #: Arrivals of a message that had arrived before.
    copies: int
    #: Arrivals that nobody had sent, or that were torn.
    unexpected: int
    #: Messages that arrived under several Message-IDs or Dates, and Message-IDs of several messages.
    renamed: int
    #: Processes that were killed while mail was going out, and the connections that they had open then.
    kills: int = 0
    connections: int = 0
    seconds: float = 0
    #: What drains said that ended badly without being killed.
    failures: list[str] = field(default_factory=list)

    @property
    def allowed(self) -> int:
        """How many copies the kills explain: what each connection carried, and what was done and not yet settled."""
        return self.connections + READY * self.kills

    def faults(self) -> list[str]:
        """Say what must not be; nothing when all is well."""
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
    """Give the subject of the numbered message of a run."""
    return f"message {number}"


def body(number: int) -> str:
    """Give the body of the numbered message of a run."""
    return f"{'A line of mail. ' * 4}\n" * 20 + f"The end of {subject(number)}.\n"


def draw_up(accepted: int, arrivals: list[Stored], waiting: Iterable[bytes], dead: Iterable[bytes]) -> Ledger:
    """Compare the messages 0 to ``accepted`` with what arrived, and with the payloads that are in the queue."""
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
    """Return the subject of the message that arrived; "" when it does not end as that message does."""
    return arrival.subject if arrival.subject == _end(arrival.content) else ""


def _end(text: bytes) -> str:
    found = _END.search(text)
    return found[1].decode() if found else ""


def _renamed(arrivals: list[Stored]) -> int:
    """Count what is not one Message-ID and one Date for each message, and one message for each Message-ID."""
    headers = [arrival.message for arrival in arrivals]
    stamps = {(one["Subject"], one["Message-ID"], one["Date"]) for one in headers}
    subjects, identities, _ = (set(column) for column in zip(("", "", ""), *stamps, strict=True))
    return 2 * (len(stamps) + 1) - len(subjects) - len(identities)
