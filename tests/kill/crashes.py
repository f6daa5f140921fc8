"""A drain that dies at a given point: ``python -m tests.kill.crashes POINT``. Exits with 9, or with 0 if it survives.

A point is "before" or "after" and the name of a step: one of target(), or the reading of one of the server's replies
("dot" is the reply to the final dot).
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
#: The steps that the server answers, in the order in which a drain reads the replies.
REPLIES = ("banner", "EHLO", "MAIL", "RCPT", "DATA", "dot", "QUIT")

#: What the current exchange does: "reserve", and the ``how`` of each settlement.
exchanging: set[str] = set()


def die(*args: Any, **kwargs: Any) -> None:
    """Exit as a killed process does, without flushing, closing or putting anything back."""
    os._exit(STATUS)


def noting(exchange: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap Consumer.exchange() so that it records in ``exchanging`` what it does."""

    @wraps(exchange)
    def wrapper(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Any:
        exchanging.clear()
        exchanging.update(settlement.how for settlement in settlements)
        exchanging.update(["reserve"] if wanted else [])
        return exchange(consumer, settlements, wanted)

    return wrapper


def dying(method: Callable[..., Any], when: str, is_step: Callable[..., bool], call: int) -> Callable[..., Any]:
    """Wrap the method so that the process dies before or after the n-th call for which is_step() is true."""
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
    """Patch the package so that this process dies at the point."""
    when, _, step = point.partition(" ")
    owner, name, is_step = target(step)
    setattr(owner, name, dying(getattr(owner, name), when, is_step, REPLIES.index(step) + 1 if step in REPLIES else 1))
    Consumer.exchange = noting(Consumer.exchange)  # type: ignore[method-assign]


def in_exchange(how: str, statement: str = "") -> Callable[..., bool]:
    """Return a predicate for calls during an exchange that does this, whose SQL begins with ``statement``, if given."""
    return lambda owner, *args: how in exchanging and (not statement or args[0].startswith(statement))


def anywhere(*args: Any) -> bool:
    """Return True, since each call is the step."""
    return True


def target(step: str) -> tuple[Any, str, Callable[..., bool]]:
    """Return the owner and the name of the step's method, and the predicate for its calls."""
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
    # Settle in groups, however slow this machine is.
    feed.FAST = 60
    call_command("process_mail_queue")
