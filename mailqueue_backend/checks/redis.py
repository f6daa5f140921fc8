"""Checks of the Redis queue: its address, and whether its user may do what a drain does."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ..errors import ConfigurationError, QueueUnavailable
from ..mail.mailers import queue_names
from ..queues import open_queue
from ..queues.redis import Queue, redisd_address
from .settings import value_of


def check_redis_address(**kwargs: Any) -> list[CheckMessage]:
    """Report a QUEUE_REDIS_CONNECTION that is not host:port."""
    if value_of("QUEUE_BACKEND") != "redisd":
        return []
    try:
        redisd_address(value_of("QUEUE_REDIS_CONNECTION"))
    except ConfigurationError as error:
        return [Error(error.problem, hint=error.hint, id="mailqueue_backend.E006")]
    return []


def check_redis_permissions(**kwargs: Any) -> list[CheckMessage]:
    """Warn of a Redis server that cannot be reached, or that denies what a drain needs."""
    try:
        queues = [open_queue(name) for name in queue_names()]
        denied = dict.fromkeys(part for queue in queues if isinstance(queue, Queue) for part in queue.denied())
    except ConfigurationError:
        return []  # check_queue() reports it
    except QueueUnavailable as error:
        return [Warning(str(error), id="mailqueue_backend.W011")]
    if not denied:
        return []
    return [
        Warning(
            f"The Redis user of the mail queue may not use: {', '.join(denied)}.",
            hint=(
                "The documentation of the Redis queue has the ACL line that process_mail_queue needs. "
                "A process that only sends mail needs no more than RPUSH: silence this warning there."
            ),
            id="mailqueue_backend.W010",
        )
    ]
