"""A drain that dies at a given point: ``python -m tests.kill.crashes POINT``. It exits with 9, or with 0 if it lives.

A point is "before" or "after" and the name of what this process does then: one of STEPS, or of the reading of the
server's replies ("dot" is the reply to the final dot).
"""

from __future__ import annotations

import logging.handlers
import os
import sys
from collections.abc import Callable
from functools import wraps
from typing import Any

import django
from django.core.management import call_command

from tests.kill.server import STEPS as REPLIES

STATUS = 9


def die(*args: Any, **kwargs: Any) -> None:
    """End like a process that is killed: nothing is flushed, closed or put back."""
    os._exit(STATUS)


def dying(method: Callable[..., Any], when: str, call: int = 1) -> Callable[..., Any]:
    """Give the method, which dies before or after its n-th call."""
    calls = 0

    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if (calls, when) == (call, "before"):
            die()
        result = method(*args, **kwargs)
        if (calls, when) == (call, "after"):
            die()
        return result

    return wrapper


def plant(point: str) -> None:
    """Have this process die at the point."""
    when, _, step = point.partition(" ")
    for owner, name in targets(step):
        call = REPLIES.index(step) + 1 if step in REPLIES else 1
        setattr(owner, name, dying(getattr(owner, name), when, call))


def targets(step: str) -> list[tuple[Any, str]]:
    """Give the methods, by owner and name, of which any call is the step."""
    from mailqueue_backend import discards
    from mailqueue_backend.mail.connection import DeliveryMixin
    from mailqueue_backend.queues import open_queue

    queue = type(open_queue("any"))
    steps = {
        "reserve": [(queue, "reserve")],
        "ack": [(queue, "ack"), (queue, "ack_and_reserve")],
        "release": [(queue, "release")],
        "the insert of a release": [(queue, "_new")],
        "the line": [(discards.DiscardLogHandler, "emit")],
        "rotation": [(logging.handlers.RotatingFileHandler, "doRollover")],
        "the last step of rotation": [(logging.handlers.RotatingFileHandler, "rotate")],
    }
    return steps.get(step) or [(DeliveryMixin, "getreply")]


if __name__ == "__main__":
    django.setup()
    plant(sys.argv[1])
    call_command("process_mail_queue")
