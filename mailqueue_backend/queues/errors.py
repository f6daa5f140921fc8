"""A QueueUnavailable for engines that queue-front also supports: sites may already catch queue-front's error."""

from __future__ import annotations

import sys
from functools import cache

from ..errors import QueueUnavailable


def unavailable_as_in_queue_front() -> type[QueueUnavailable]:
    """Return a subclass of QueueUnavailable that is a queue_front.QueueException too.

    While queue_front is not imported, return QueueUnavailable itself: no caller can catch queue_front's error then, and
    the import could fail, since queue_front requires all its settings.
    """
    queue_front = sys.modules.get("queue_front")
    return QueueUnavailable if queue_front is None else _subclass_of_both(queue_front.QueueException)


@cache
def _subclass_of_both(queue_exception: type[Exception]) -> type[QueueUnavailable]:
    class QueueFrontUnavailable(QueueUnavailable, queue_exception):  # type: ignore[misc, valid-type]
        """QueueUnavailable, and a queue_front.QueueException."""

    return QueueFrontUnavailable
