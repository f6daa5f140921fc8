"""Transactions that an interrupt does not leave open.

An interrupt (KeyboardInterrupt, or any exception raised by a signal handler) can occur between any two lines. On the
line that leaves ``with transaction.atomic():``, it prevents the call of Django's __exit__().
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from django.db import Error, connections, transaction

R = TypeVar("R")


def in_transaction(alias: str, work: Callable[[], R]) -> R:
    """Call ``work`` in a transaction, or in a savepoint of the caller's transaction, and return its result."""
    block = transaction.atomic(using=alias)
    try:
        with block:
            return work()
    finally:
        if block in connections[alias].atomic_blocks:  # an interrupt has prevented its __exit__()
            block.__exit__(KeyboardInterrupt, None, None)  # pragma: no cover - coverage's trace function is off there


def close_interrupted_transaction(alias: str) -> None:
    """Roll back a transaction that an interrupt inside Django's own code has left open, unless it is a caller's."""
    connection = connections[alias]
    if connection.atomic_blocks or connection.connection is None or not connection.settings_dict["AUTOCOMMIT"]:
        return
    connection.in_atomic_block = connection.needs_rollback = False
    connection.savepoint_ids.clear()
    try:
        connection.rollback()
        connection.set_autocommit(True)
    except Error:
        connection.close()
