"""QueueUnavailable for those engines that queue-front has as well: sites may catch its error today."""

from __future__ import annotations

import sys
from functools import cache

from ..errors import QueueUnavailable


def unavailable_as_in_queue_front() -> type[QueueUnavailable]:
    """Give a QueueUnavailable that is a queue_front.QueueException too.

    Where queue_front has not been imported, nobody catches its errors; to import it here may fail, since
    it wants to find all its settings.
    """
    queue_front = sys.modules.get("queue_front")
    return QueueUnavailable if queue_front is None else _both(queue_front.QueueException)


@cache
def _both(queue_exception: type[Exception]) -> type[QueueUnavailable]:
    class QueueFrontUnavailable(QueueUnavailable, queue_exception):  # type: ignore[misc, valid-type]
        """QueueUnavailable, and a queue_front.QueueException."""

    return QueueFrontUnavailable
