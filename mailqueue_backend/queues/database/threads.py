"""Which thread stores a message, and who closes the connection that it opens."""

from __future__ import annotations

import os
from asyncio import get_running_loop
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import TypeVar

from django.db import connections

R = TypeVar("R")


def allows_database_calls() -> bool:
    """Return whether Django allows database calls here: not in a running event loop."""
    try:
        get_running_loop()
    except RuntimeError:
        return True
    return bool(os.environ.get("DJANGO_ALLOW_ASYNC_UNSAFE"))


def run_in_thread(alias: str, work: Callable[[], R]) -> R:
    """Call ``work`` in a new thread and return its result; raise its exception. The thread's connection is closed.

    After an interrupt, ``work`` is finished first, so the message may have been stored.
    """

    def run() -> R:
        try:
            result = work()
            connection = connections[alias]
            if connection.connection is not None and not connection.autocommit:
                connection.commit()  # nobody else can
            return result
        finally:
            connections.close_all()

    with ThreadPoolExecutor(1) as executor:
        return executor.submit(run).result()


@contextmanager
def closing_new_connection(alias: str) -> Iterator[None]:
    """Close the connection if the block opens it, unless this is the main thread, or autocommit is off.

    Django closes connections only after a request. In any other thread, the connection would stay open, and a pool
    would never get it back. The thread of a request cannot be told apart, but its connection is usually open already;
    if not, the next query of the request connects again.
    """
    connection = connections[alias]
    was_open = connection.connection is not None
    try:
        yield
    finally:
        if not was_open and connection.autocommit and current_thread() is not main_thread():
            connection.close()
