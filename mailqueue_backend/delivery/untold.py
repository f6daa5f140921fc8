"""What became of messages while the queue was unavailable until the end of the drain.

Their leases end, and the queue hands them out again, as if their process had died. A later drain of the same process
settles those that were finished, and does not count these hand-outs as deaths.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple

from ..queues.base import How, MessageQueue, Settlement
from .policy import Disposition
from .settling import Delivery

#: Messages that are remembered, at most.
MOST = 100


class Untold(NamedTuple):
    """One message that could not be settled."""

    #: How often it was handed out to this process without being settled.
    survived: int
    #: None: it was not delivered.
    disposition: Disposition | None
    #: The ``how``, payload and delay of its settlement; None: it is to be delivered again.
    settlement: tuple[How, bytes | None, float] | None


#: By queue and payload, oldest first.
_untold: OrderedDict[tuple[str, bytes], Untold] = OrderedDict()


def remember(queue: MessageQueue, deliveries: Iterable[Delivery]) -> None:
    """Remember messages that cannot be settled."""
    for delivery in deliveries:
        settlement = None
        if delivery.settlement is not None and delivery.settlement.how in ("ack", "release"):
            settlement = delivery.settlement[1:]
        known = Untold(delivery.survived + 1, delivery.disposition, settlement)
        _untold[_key(queue, delivery.reservation.payload)] = known
        if len(_untold) > MOST:
            _untold.popitem(last=False)


def recall(queue: MessageQueue, delivery: Delivery) -> None:
    """Complete a delivery that has just been reserved with what is remembered of its message."""
    if not _untold:
        return
    known = _untold.get(_key(queue, delivery.reservation.payload))
    if known is None:
        return
    delivery.survived = known.survived
    if known.settlement is not None:
        delivery.is_started, delivery.disposition = True, known.disposition
        delivery.settlement = Settlement(delivery.reservation, *known.settlement)


def forget(queue: MessageQueue, delivery: Delivery) -> None:
    """Forget a message that has been settled."""
    if _untold:
        _untold.pop(_key(queue, delivery.reservation.payload), None)


def _key(queue: MessageQueue, payload: bytes) -> tuple[str, bytes]:
    return repr(queue), sha256(payload).digest()
