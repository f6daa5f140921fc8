"""Messages that are due in the future although nothing has delayed them.

They were queued, or reserved, while the clock of the queue's server was ahead; then it was set back. Such a message may
be due tomorrow, and until then it counts as deferred. It is only reported: to deliver it now would be a guess.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime

from ..envelope import id_of_unopened, meta_of_unopened
from ..queues.base import Counts, Entry, MessageQueue, State
from ..settings import conf
from .policy import LONGEST_DELAY
from .words import duration

#: Messages that are looked at, at most, in each state; and at a time, since they may be big.
LOOKED_AT, PAGE = 50, 10
#: Seconds by which the clock of the queue's server may differ from ours.
TOLERANCE = 60


def describe_future(queue: MessageQueue, counts: Counts) -> str:
    """Return a sentence about the first message in the future; "" if there is none, or if the engine cannot look.

    Raises QueueUnavailable.
    """
    if not queue.browsable:
        return ""
    longest_delay = max(conf.MAIL_QUEUE_RETRY_DELAY, LONGEST_DELAY)
    for entry in _first(queue, "deferred", counts.deferred):
        seconds = _seconds_until(entry)
        if seconds > longest_delay + TOLERANCE or (seconds > TOLERANCE and _was_never_tried(entry)):
            return _describe(queue, entry)
    for entry in _first(queue, "reserved", counts.reserved):
        if _seconds_until(entry) > max(conf.MAIL_QUEUE_LEASE, longest_delay) + TOLERANCE:
            return _describe(queue, entry)
    return ""


def _first(queue: MessageQueue, state: State, count: int) -> Iterator[Entry]:
    after: Entry | None = None
    for _ in range(0, min(count, LOOKED_AT), PAGE):
        page = queue.browse(state, PAGE, after)
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1]


def _was_never_tried(entry: Entry) -> bool:
    meta = meta_of_unopened(entry.payload)
    return meta is not None and not meta.attempts


def _seconds_until(entry: Entry) -> float:
    return 0 if entry.due is None else entry.due - time.time()


def _describe(queue: MessageQueue, entry: Entry) -> str:
    assert entry.due is not None
    return (
        f"Message {id_of_unopened(entry.payload)} in {queue.name} is {entry.state} until "
        f"{datetime.fromtimestamp(entry.due):%Y-%m-%d %H:%M:%S} (for {duration(entry.due - time.time())}), although "
        "nothing has delayed it for so long: the clock of the queue's server was ahead. There may be more such "
        "messages. They are delivered at that time. To deliver them now, run "
        '"manage.py mail_queue retry --all".'
    )
