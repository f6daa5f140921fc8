"""Receive the queue's signals, and write the history."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from django.db import connections, transaction

from ..delivery.events import Event
from ..queues.database.threads import allows_database_calls, run_in_thread
from ..signals import drain_ended, message_events
from .models import Recipient
from .rows import rows_of
from .statements import history_alias, insert, prune, set_aside, upsert
from .writer import Writer

#: Maximum number of rows that the end of a drain deletes.
PRUNED_BY_DRAIN = 1000

_writer = Writer()


def connect() -> None:
    """Connect the receivers. May be called again."""
    message_events.connect(record, dispatch_uid="mailqueue_history")
    drain_ended.connect(end_drain, dispatch_uid="mailqueue_history")


def disconnect() -> None:
    """Disconnect the receivers."""
    message_events.disconnect(dispatch_uid="mailqueue_history")
    drain_ended.disconnect(dispatch_uid="mailqueue_history")


def record(events: Sequence[Event], **kwargs: Any) -> None:
    """Record what became of a group of messages."""
    alias, rows = history_alias(), rows_of(events)
    if events[0].status != "queued":
        buried = [event for event in events if event.status == "buried"]
        _call(alias, partial(_record_tried, alias, rows, buried))
    elif rows:
        _record_queued(alias, partial(_writer.write, alias, insert, rows))


def _record_queued(alias: str, write: Callable[[], None]) -> None:
    """Write after the caller's transaction has committed, so that no error or lock of the history can affect it."""
    if allows_database_calls() and connections[alias].in_atomic_block:
        transaction.on_commit(write, using=alias)
    else:
        _call(alias, write)


def _record_tried(alias: str, rows: Sequence[Recipient], buried: Sequence[Event]) -> None:
    if rows:
        _writer.write(alias, upsert, rows)
    if buried:
        _writer.run(alias, partial(set_aside, alias, buried))


def _call(alias: str, write: Callable[[], None]) -> None:
    """Call ``write``; in a running event loop, in another thread, since Django allows no database calls there."""
    if allows_database_calls():
        write()
    else:
        run_in_thread(alias, write)


def end_drain(**kwargs: Any) -> None:
    """Delete some old rows."""
    alias = history_alias()
    _call(alias, partial(_writer.run, alias, partial(prune, PRUNED_BY_DRAIN)))
    _writer.end_run()
