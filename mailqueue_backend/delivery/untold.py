"""What became of messages while the queue was unavailable until the end of the drain.

Their leases end, and the queue hands them out again, as if their process had died. A later drain of the same process
settles those that were finished, and does not count these hand-outs as deaths.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from ..queues.base import MessageQueue, Settlement
from .policy import Disposition
from .settling import Delivery

#: Messages that are remembered, at most.
MOST = 1000


class Untold(NamedTuple):
    """One message that could not be settled."""

    #: How often it was handed out to this process without being settled.
    survived: int
    #: None: it was not delivered.
    disposition: Disposition | None
    #: None: it was to be put back.
    settlement: Settlement | None


#: By queue and payload, oldest first.
_untold: OrderedDict[tuple[str, bytes], Untold] = OrderedDict()


def remember(queue: MessageQueue, deliveries: Iterable[Delivery]) -> None:
    """Remember messages that cannot be settled."""
    for delivery in deliveries:
        known = Untold(delivery.survived + 1, delivery.disposition, delivery.settlement)
        _untold[_key(queue, delivery.reservation.payload)] = known
        if len(_untold) > MOST:
            _untold.popitem(last=False)


def recall(queue: MessageQueue, delivery: Delivery) -> None:
    """Complete a delivery that has just been reserved with what is remembered of its message."""
    if not _untold:
        return
    known = _untold.pop(_key(queue, delivery.reservation.payload), None)
    if known is None:
        return
    delivery.survived = known.survived
    if known.settlement is not None and known.settlement.how != "leave":
        delivery.is_started, delivery.disposition = True, known.disposition
        delivery.settlement = known.settlement._replace(reservation=delivery.reservation)


def _key(queue: MessageQueue, payload: bytes) -> tuple[str, bytes]:
    return repr(queue), sha256(payload).digest()
