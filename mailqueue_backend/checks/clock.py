"""A check of the queues' messages: some may lie in the future, because a clock was ahead."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Warning

from ..delivery.clock import describe_future
from ..errors import ConfigurationError, QueueUnavailable
from ..mail.mailers import queue_names
from ..queues import open_queue


def check_clock(**kwargs: Any) -> list[CheckMessage]:
    """Warn of messages that are due in the future although nothing has delayed them."""
    return [Warning(text, id="mailqueue_backend.W012") for text in _descriptions()]


def _descriptions() -> Iterator[str]:
    with suppress(ConfigurationError, QueueUnavailable):  # other checks report these
        for name in queue_names():
            queue = open_queue(name)
            if text := describe_future(queue, queue.counts()):
                yield text
