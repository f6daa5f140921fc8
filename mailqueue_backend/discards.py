"""The discard log: exactly one line for each message that is given up.

Its logger carries only discard lines. The line is written and flushed before the message leaves the queue; if it cannot
be written, DiscardLogError is raised, and the message stays queued. Several processes may write to the same log: each
one locks a file beside it while it writes, whose name ends in ``.lock``.
"""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from logging.handlers import RotatingFileHandler
from typing import Any, NamedTuple

from django.core.files import locks

from .errors import DiscardLogError, interrupts
from .settings import conf

#: The format of 0.1.2.
FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
#: Line ends, and control characters of terminals.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

LOGGER = logging.getLogger("smtp.mail_queue")


class OneLineFormatter(logging.Formatter):
    """Escapes line ends and control characters, so that a subject cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), super().format(record))


class DiscardLogHandler(RotatingFileHandler):
    """Writes to MAIL_QUEUE_LOG_FILENAME, read for each record, in UTF-8. Opens the file at the first record."""

    def __init__(self) -> None:
        super().__init__(os.devnull, delay=True, encoding="utf-8", errors="backslashreplace")
        self.setLevel(logging.WARNING)
        self.setFormatter(OneLineFormatter(FORMAT))

    def emit(self, record: logging.LogRecord) -> None:
        """Write and flush one record, after rotating the file if necessary, while holding the lock of the log."""
        try:
            self._follow_settings()
            with _locked(f"{self.baseFilename}.lock"):
                self._leave_rotated_file()
                super().emit(record)
        except Exception:
            super().handleError(record)
            raise

    def handleError(self, record: logging.LogRecord) -> None:
        """Raise the error again for emit(), which reports it on stderr, as logging does, and lets the caller see it."""
        raise

    def _follow_settings(self) -> None:
        self.maxBytes = conf.MAIL_QUEUE_LOG_FILE_MAXBYTES
        self.backupCount = conf.MAIL_QUEUE_LOG_FILE_BACKUP
        filename = os.path.abspath(conf.MAIL_QUEUE_LOG_FILENAME)
        if filename != self.baseFilename:
            self._close_stream()
            self.baseFilename = filename

    def _leave_rotated_file(self) -> None:
        """Close the file if another process has rotated it; the next record opens the new one."""
        if self.stream and not _is_file(self.stream, self.baseFilename):
            self._close_stream()

    def _close_stream(self) -> None:
        if self.stream:
            self.stream.close()
            self.stream = None


@contextmanager
def _locked(filename: str) -> Iterator[None]:
    """Hold a lock file. If it cannot be created, do without: rotation cannot rename files in that directory either."""
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
    """Return the logger's handler, attaching it at the first call."""
    for handler in LOGGER.handlers:
        if isinstance(handler, DiscardLogHandler):
            return handler
    handler = DiscardLogHandler()
    LOGGER.addHandler(handler)
    return handler


class Discard(NamedTuple):
    """A message, or one recipient of it, that is given up."""

    #: "Message Expired", "Message Refused", "Message Unsendable" or "Recipient Refused".
    what: str
    created: object
    subject: object
    sender: object
    recipients: Iterable[object]
    error: object
    id: str
    #: None: it has none.
    message_id: object = None


def log_discard(discard: Discard) -> None:
    """Write the line for a message that is given up. Raises DiscardLogError if it cannot be written."""
    try:
        LOGGER.warning(
            "%s. Created:%s, Subject: %s, From:%s, To:%s. Error: %s. Id: %s. Message-ID: %s",
            discard.what,
            discard.created,
            discard.subject,
            discard.sender,
            ", ".join(map(str, discard.recipients)),
            str(discard.error).rstrip("."),
            discard.id,
            discard.message_id or "none",
        )
    except interrupts():
        raise
    except Exception as cause:
        raise DiscardLogError(f"The discard log {conf.MAIL_QUEUE_LOG_FILENAME} cannot be written: {cause}") from cause
