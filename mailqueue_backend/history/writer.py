"""Write the history so that a database that fails costs rows, but no mail.

Only the errors of the database are caught. They are logged once, and again after ten minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from time import monotonic

from django.db import DataError, Error, connections

from ..delivery.troubles import Troubles
from ..logs import get_logger
from ..queues.database.atomic import in_transaction
from ..queues.database.threads import closing_new_connection
from .models import Recipient
from .rows import replace_astral

logger = get_logger("history")

Statement = Callable[[str, Sequence[Recipient]], object]

#: A database that takes longer than this to fail, in seconds, is not used for the next PAUSE seconds.
SLOW = 1.0
PAUSE = 10.0
#: MySQL's error number for characters that a column cannot store; mysqlclient raises no DataError for it.
MYSQL_WRONG_CHARACTERS = 1366


class Writer:
    """Runs statements on the history's database, and logs what it cannot do."""

    def __init__(self) -> None:
        self._troubles = Troubles()
        #: When the database may be used again, on monotonic().
        self._resume_at = 0.0

    def write(self, alias: str, statement: Statement, rows: Sequence[Recipient]) -> None:
        """Call ``statement`` with the rows. If one of them cannot be stored, store the others."""
        try:
            self.run(alias, partial(statement, alias, rows))
        except Error as error:
            if len(rows) > 1:
                for row in rows:
                    self.write(alias, statement, [row])
            elif replace_astral(rows[0]):
                self.write(alias, statement, rows)
            else:
                self._report(alias, error)

    def run(self, alias: str, work: Callable[[], object]) -> None:
        """Call ``work``, which uses the database. Raise only errors that are about a row."""
        began = monotonic()
        if began < self._resume_at:
            return
        try:
            with closing_new_connection(alias):
                _run(alias, work)
        except Error as error:
            if _is_about_a_row(error):
                raise
            if monotonic() - began > SLOW:
                self._resume_at = monotonic() + PAUSE
            self._report(alias, error)

    def _report(self, alias: str, error: Error) -> None:
        reason = str(error).partition("\n")[0]  # further lines may contain the data of a row
        advice = 'if its table is missing, run "manage.py migrate"'
        text = f"The mail history on the database {alias} is incomplete: {reason} ({advice})"
        over = f"The mail history on the database {alias} is written again."
        self._troubles.report(alias, text, over, logger.warning)

    def end_run(self) -> None:
        """Log that the database works again, if the drain that ends has written to it."""
        self._troubles.end_run()


def _run(alias: str, work: Callable[[], object]) -> None:
    """Call ``work``; once more if it has lost a race, or its connection."""
    connection = connections[alias]
    if connection.in_atomic_block:
        in_transaction(alias, work)
        return
    began = monotonic()
    try:
        work()
    except Error as error:
        if _is_about_a_row(error) or monotonic() - began > SLOW:
            raise
        connection.close_if_unusable_or_obsolete()
        work()


def _is_about_a_row(error: Error) -> bool:
    return isinstance(error, DataError) or error.args[:1] == (MYSQL_WRONG_CHARACTERS,)
