"""QueueUnavailable for the engines that queue-front has as well: sites may catch queue-front's error today."""

from __future__ import annotations

import sys
from functools import cache

from ..errors import QueueUnavailable


def unavailable_as_in_queue_front() -> type[QueueUnavailable]:
    """Return a subclass of QueueUnavailable that is a queue_front.QueueException too.

    Return QueueUnavailable itself while queue_front is not imported: nobody can catch its errors then, and importing
    it here could fail, since it requires all its settings.
    """
    queue_front = sys.modules.get("queue_front")
    return QueueUnavailable if queue_front is None else _both(queue_front.QueueException)


@cache
def _both(queue_exception: type[Exception]) -> type[QueueUnavailable]:
    class QueueFrontUnavailable(QueueUnavailable, queue_exception):  # type: ignore[misc, valid-type]
        """QueueUnavailable, and a queue_front.QueueException."""

    return QueueFrontUnavailable
