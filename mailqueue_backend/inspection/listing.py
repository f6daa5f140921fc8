"""List the messages of queues, and find them by their ids."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..envelope.signature import keys
from ..queues.base import Entry, MessageQueue, State
from .messages import Message, open_entry

#: Messages that are listed at a time, since they may be big; at most, if those before them were small.
PAGE, LARGEST_PAGE = 10, 50
#: Size in bytes that a page shall have, if its messages are as big as those before them.
PAGE_BYTES = 500_000
#: All states.
STATES: tuple[State, ...] = ("due", "deferred", "reserved", "dead")
#: Digits of an id that are needed to name a message, and all that it has.
SHORTEST_ID, LONGEST_ID = 4, 12


class Criteria(NamedTuple):
    """Texts that the addresses and the subject must contain, in any case; seconds of age. None: anything will do."""

    recipient: str | None = None
    sender: str | None = None
    subject: str | None = None
    older_than: float | None = None

    def match(self, message: Message) -> bool:
        """Return whether a message meets all of them; one whose age is unknown is as old as you like."""
        created = 0 if message.created is None else message.created
        return (
            _contains(message.recipients, self.recipient)
            and _contains([message.sender], self.sender)
            and _contains([message.subject], self.subject)
            and (self.older_than is None or time.time() - created > self.older_than)
        )


def list_messages(
    queue: MessageQueue, states: Iterable[State] = STATES, after: Entry | None = None
) -> Iterator[Message]:
    """Open the messages in these states, in each state oldest first. Raises QueueUnavailable.

    ``after``: an entry of a single state, behind which to begin.
    A message that moves to another state meanwhile may be listed twice, or not at all.
    """
    accepted = keys()
    for state in states:
        for entry in _entries(queue, state, after):
            yield open_entry(queue, entry, accepted)


def find(queues: Sequence[MessageQueue], ids: Sequence[str]) -> list[Message]:
    """Return the messages with these ids, each in any unambiguous length.

    Raises LookupError if an id is ambiguous, or in no queue. Two copies of a message have the same id.
    """
    found: dict[str, list[Message]] = {}
    for _ in range(2):  # a message that moves meanwhile may be missed once
        found = _find(queues, ids)
        if len(found) == len(set(ids)):
            break
    for digits in ids:
        whole = sorted({message.id for message in found.get(digits, ())})
        if not whole:
            raise LookupError(f"There is no message {digits} in {', '.join(queue.name for queue in queues)}.")
        if len(whole) > 1:
            raise LookupError(f"{digits} is ambiguous. Write more digits of one of these: {', '.join(whole)}.")
    distinct = {(id(one.queue), one.entry.state, one.entry.key): one for each in found.values() for one in each}
    return list(distinct.values())


def _find(queues: Sequence[MessageQueue], ids: Sequence[str]) -> dict[str, list[Message]]:
    found: dict[str, list[Message]] = {}
    for queue in queues:
        for message in list_messages(queue):
            for digits in set(ids):
                if message.id.startswith(digits):
                    found.setdefault(digits, []).append(message)
    return found


def _entries(queue: MessageQueue, state: State, after: Entry | None = None) -> Iterator[Entry]:
    limit = PAGE
    while page := queue.browse(state, limit, after):
        yield from page
        after = page[-1]
        size = sum(len(entry.payload) for entry in page)
        limit = min(max(PAGE_BYTES * len(page) // max(size, 1), PAGE), LARGEST_PAGE)


def _contains(texts: Iterable[str], part: str | None) -> bool:
    return part is None or any(part.lower() in text.lower() for text in texts)
