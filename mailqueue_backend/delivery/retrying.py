"""When something is tried again: a step with the queue at once, a message that failed after a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..envelope import created_epoch
from ..errors import QueueUnavailable
from ..logs import get_logger
from ..settings import conf

logger = get_logger("delivery")

T = TypeVar("T")

#: Seconds between the tries of a step with the queue: a database that restarts must not cost a second copy.
PAUSES = (0.1, 0.5, 2.0)
#: However long a message keeps failing, it is tried once in so many seconds.
LONGEST_DELAY = 3600


def persist(step: Callable[[], T]) -> T:
    """Take a step with the queue, again for a while when the queue is unavailable."""
    for pause in PAUSES:
        try:
            return step()
        except QueueUnavailable as error:
            logger.warning("The queue is unavailable, trying again in %s s: %s", pause, error)
            time.sleep(pause)
    return step()


def retry_delay(fields: Mapping[str, Any]) -> float:
    """Tell in how many seconds to try again: as long as the message is old, between the setting and an hour."""
    shortest = conf.MAIL_QUEUE_RETRY_DELAY
    if not shortest:
        return 0
    age = time.time() - created_epoch(fields["created"], fields)
    return min(max(shortest, age), max(shortest, LONGEST_DELAY))
