"""A drain that dies at a given point: ``python -m tests.kill.crashes POINT``. It exits with 9, or with 0 if it lives.

A point is "before" or "after" and the name of what this process does then: a step of targets(), or the reading of one
of the server's replies ("dot" is the reply to the final dot).
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
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.backends.utils import CursorWrapper

from mailqueue_backend import discards
from mailqueue_backend.delivery import feed
from mailqueue_backend.queues.base import Consumer
from mailqueue_backend.transport.connection import DeliveryMixin

STATUS = 9
#: What the server's replies answer, in the order in which a drain reads them.
REPLIES = ("banner", "EHLO", "MAIL", "RCPT", "DATA", "dot", "QUIT")

#: What the running exchange does: "reserve", and how it settles.
exchanging: set[str] = set()


def die(*args: Any, **kwargs: Any) -> None:
    """End like a process that is killed: nothing is flushed, closed or put back."""
    os._exit(STATUS)


def noting(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Return Consumer.exchange() so that it notes what it does in ``exchanging``."""

    @wraps(exchange)
    def wrapper(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Any:
        exchanging.clear()
        exchanging.update(settlement.how for settlement in settlements)
        exchanging.update(["reserve"] if wanted else [])
        return exchange(consumer, settlements, wanted)

    return wrapper


def dying(method: Callable[..., Any], when: str, is_step: Callable[..., bool], call: int) -> Callable[..., Any]:
    """Return the method so that it dies before or after the n-th of its calls that are the step."""
    calls = 0

    @wraps(method)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += is_step(*args)
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
    owner, name, is_step = target(step)
    setattr(owner, name, dying(getattr(owner, name), when, is_step, REPLIES.index(step) + 1 if step in REPLIES else 1))
    Consumer.exchange = noting(Consumer.exchange)  # type: ignore[method-assign]


def in_exchange(how: str, statement: str = "") -> Callable[..., bool]:
    """Return a test for calls in an exchange that does this; ``statement``: how the SQL of execute() begins."""
    return lambda owner, *args: how in exchanging and (not statement or args[0].startswith(statement))


def anywhere(*args: Any) -> bool:
    """Return True: each call is the step."""
    return True


def target(step: str) -> tuple[Any, str, Callable[..., bool]]:
    """Return the method, by owner and name, and which of its calls are the step."""
    exchange, commit = (Consumer, "exchange"), (BaseDatabaseWrapper, "commit")
    rotating = logging.handlers.RotatingFileHandler
    steps: dict[str, tuple[Any, str, Callable[..., bool]]] = {
        "reserve": (*exchange, in_exchange("reserve")),
        "ack": (*exchange, in_exchange("ack")),
        "release": (*exchange, in_exchange("release")),
        "the insert of a release": (CursorWrapper, "execute", in_exchange("release", "INSERT")),
        "the commit of a reserve": (*commit, in_exchange("reserve")),
        "the commit of an ack": (*commit, in_exchange("ack")),
        "the commit of a release": (*commit, in_exchange("release")),
        "the line": (discards.DiscardLogHandler, "emit", anywhere),
        "rotation": (rotating, "doRollover", anywhere),
        "the last step of rotation": (rotating, "rotate", anywhere),
    }
    return steps.get(step, (DeliveryMixin, "getreply", anywhere))


if __name__ == "__main__":
    django.setup()
    plant(sys.argv[1])
    # What is done is settled in groups, however slow this machine is.
    feed.FAST = 60
    call_command("process_mail_queue")
