"""The discard log: one line, and one only, for each message that is given up.

Its logger carries discard lines and nothing else. The line is written and flushed before the message leaves
the queue; a log that cannot be written raises DiscardLogError, and the message stays. Several processes may
write to one log: they take turns by a lock on a file beside it, whose name ends in ``.lock``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from typing import Any

from django.core.files import locks

from .errors import DiscardLogError, interrupts
from .settings import conf

FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
#: Characters that would end a line, or that a terminal obeys.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

LOGGER = logging.getLogger("smtp.mail_queue")


class OneLineFormatter(logging.Formatter):
    """Escapes line ends and control characters: a subject must not forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), super().format(record))


class DiscardLogHandler(RotatingFileHandler):
    """Writes to the file that the settings name now, in UTF-8 on every system; opens it at the first record."""

    def __init__(self) -> None:
        super().__init__(os.devnull, delay=True, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.WARNING)
        self.setFormatter(OneLineFormatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write and flush one record, rotating before that when it is time, while no other process does."""
        try:
            self._follow_settings()
            with _turn(f"{self.baseFilename}.lock"):
                self._leave_rotated_file()
                super().emit(record)
        except Exception:
            super().handleError(record)
            raise

    def handleError(self, record: logging.LogRecord) -> None:
        """Let a failure reach emit(), which reports it on stderr as logging does, and then the one who logs."""
        raise

    def _follow_settings(self) -> None:
        self.maxBytes = conf.MAIL_QUEUE_LOG_FILE_MAXBYTES
        self.backupCount = conf.MAIL_QUEUE_LOG_FILE_BACKUP
        filename = os.path.abspath(conf.MAIL_QUEUE_LOG_FILENAME)
        if filename != self.baseFilename:
            self._close_stream()
            self.baseFilename = filename

    def _leave_rotated_file(self) -> None:
        """Open the log anew, at the next record, where another process has renamed what we have open."""
        if self.stream and not _is_file(self.stream, self.baseFilename):
            self._close_stream()

    def _close_stream(self) -> None:
        if self.stream:
            self.stream.close()
            self.stream = None


@contextmanager
def _turn(filename: str) -> Iterator[None]:
    """Wait until no other process has its turn. Where no file can be made, none can be renamed: rotation fails."""
    try:
        lock = open(filename, "ab")  # noqa: SIM115 - closed below
    except PermissionError:
        yield
        return
    with lock:
        locks.lock(lock, locks.LOCK_EX)
        yield


def _is_file(stream: Any, filename: str) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(filename))
    except FileNotFoundError:
        return False


def attach_handler() -> DiscardLogHandler:
    """Attach the handler to the logger, once, however often this is called, and return it."""
    for handler in LOGGER.handlers:
        if isinstance(handler, DiscardLogHandler):
            return handler
    handler = DiscardLogHandler()
    LOGGER.addHandler(handler)
    return handler


def log_discard(
    created: object, sender: object, recipients: Iterable[object], subject: object, error: object, id: str
) -> None:
    """Write the line for a message that is given up. Raises DiscardLogError when it cannot be written."""
    try:
        LOGGER.warning(
            "Message Expired. Created:%s, Subject: %s, From:%s, To:%s. Error: %s. Id: %s",
            created,
            subject,
            sender,
            ", ".join(map(str, recipients)),
            error,
            id,
        )
    except interrupts():
        raise
    except Exception as cause:
        raise DiscardLogError(f"The discard log {conf.MAIL_QUEUE_LOG_FILENAME} cannot be written: {cause}") from cause
