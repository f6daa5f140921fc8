"""The check of the Redis queue: its address."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from ..errors import ConfigurationError
from ..queues.redis import redisd_address
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
