"""Select the fresh rows of a queue: due, and not suspects.

PostgreSQL keeps each deleted row in the index as long as any transaction may still see it. If a select began at the
head of the queue, it would skip all rows delivered since the oldest transaction began. So a consumer begins at the last
row that it has selected, and only once a second at the head.
"""

from __future__ import annotations

from time import monotonic

from django.db.backends.utils import CursorWrapper

from .rows import Row, compile_select, select

#: Seconds between two selects from the head of the queue. An earlier row that becomes due, because another process
#: has committed it late or put it back, waits no longer than this.
RESTART_INTERVAL = 1
#: Stands for the bound in the parameters of a compiled query; no queue can have this name.
BOUND = "\0"


class FreshRows:
    """The position of one consumer in its queue."""

    def __init__(self, alias: str, queue: str) -> None:
        self._alias = alias
        self._queue = queue
        #: ``due`` of the last row that was selected, as the database writes it.
        self._last_due = ""
        #: When to begin at the head again, on time.monotonic().
        self._next_restart = 0.0

    def restart(self) -> None:
        """Begin at the head again, since rows that were selected before may be due."""
        self._next_restart = 0.0

    def select(self, cursor: CursorWrapper, wanted: int) -> list[Row]:
        """Return up to ``wanted`` rows; none only if there are none in the whole queue."""
        rows: list[Row] = []
        if monotonic() < self._next_restart:
            compiled = compile_select(self._alias, self._queue, "fresh", wanted, since=BOUND)
            params = tuple(self._last_due if param == BOUND else param for param in compiled.params)
            rows = select(cursor, compiled._replace(params=params))
        if not rows:
            self._next_restart = monotonic() + RESTART_INTERVAL
            rows = select(cursor, compile_select(self._alias, self._queue, "fresh", wanted))
        if rows:
            self._last_due = rows[-1].due
        else:
            self.restart()
        return rows
