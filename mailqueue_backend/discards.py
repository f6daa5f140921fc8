"""The discard log: exactly one line for each message that is given up.

The line is written before the message leaves the queue; if it cannot be written, DiscardLogError is raised, and the
message stays queued. The site's logging configuration decides only what else happens to the record: levels, disabled
loggers and ``logging.disable()`` do not concern the file. Several processes may write to the same log: each one locks a
file beside it while it writes, whose name ends in ``.lock``.
"""

from __future__ import annotations

import errno
import logging
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from io import FileIO
from logging.handlers import RotatingFileHandler
from threading import local
from typing import Any, NamedTuple

from django.core.files import locks

from .errors import DiscardLogError, interrupts
from .logs import handle_as_ours
from .settings import conf

#: The format of 0.1.2.
FORMAT = "%(asctime)s - %(name)s - %(levelname)s - %(message)s"
#: Errors of creating a file where only existing ones may be written.
NOT_ALLOWED = {errno.EACCES, errno.EPERM, errno.EROFS}
#: Line ends, and control characters of terminals.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029]")

LOGGER = logging.getLogger("smtp.mail_queue")
LOGGER.handle = partial(handle_as_ours, LOGGER)  # type: ignore[method-assign]

#: ``count`` is the number of lines that this thread has written.
_lines = local()


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
        """Write one record, after rotating the file if necessary, while holding the lock of the log."""
        if getattr(record, "is_in_discard_log", False):
            return
        try:
            self._follow_settings()
            with _locked(self.baseFilename):
                self._leave_rotated_file()
                # Python 3.13: shouldRollover() fails if the log is a pipe.
                if os.path.isfile(self.baseFilename) and self.shouldRollover(record):
                    self.doRollover()
                self._append(f"{self.format(record)}{self.terminator}".encode("utf-8", "backslashreplace"))
        except Exception:
            self.handleError(record)
            raise
        _lines.count = lines_written() + 1

    def _append(self, line: bytes) -> None:
        """Write a line in one call. If only a part can be written, remove it: no other line may be appended to it."""
        stream: Any = self.stream or self._open()
        self.stream = stream
        size = os.fstat(stream.fileno()).st_size
        try:
            written = stream.write(line)
            if written != len(line):
                raise OSError(f"only {written} of the line's {len(line)} bytes could be written: is the disk full?")
        except OSError:
            with suppress(OSError):
                stream.truncate(size)
            self._close_stream()
            raise

    def _open(self) -> Any:
        """Open the file without a buffer: a line that could not be written must not appear later."""
        return FileIO(self.baseFilename, "ab")

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
        stream, self.stream = self.stream, None
        if stream:
            with suppress(OSError):  # network file systems may report a full disk here again
                stream.close()


@contextmanager
def _locked(log: str) -> Iterator[None]:
    """Hold the lock file of a log. If it cannot be created, lock the log: no process can rename it then, either."""
    try:
        lock = open(f"{log}.lock", "ab")  # noqa: SIM115 - closed below
    except OSError as error:
        if error.errno not in NOT_ALLOWED:
            raise
        lock = open(log, "ab")  # noqa: SIM115
    with lock:
        locks.lock(lock, locks.LOCK_EX)
        yield


def _is_file(stream: Any, filename: str) -> bool:
    try:
        return os.path.samestat(os.fstat(stream.fileno()), os.stat(filename))
    except FileNotFoundError:
        return False


#: The one handler of the discard log.
_HANDLER = DiscardLogHandler()


def attach_handler() -> DiscardLogHandler:
    """Return the handler, attached to the logger: a logging configuration may have removed it."""
    if _HANDLER not in LOGGER.handlers:
        LOGGER.addHandler(_HANDLER)
    return _HANDLER


def lines_written() -> int:
    """Return the number of lines that this thread has written."""
    count: int = getattr(_lines, "count", 0)
    return count


class Discard(NamedTuple):
    """A message, or one recipient of it, that is given up."""

    #: "Message Expired", "Message Refused", "Message Unsendable", "Message Discarded" or "Recipient Refused".
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
    """Write the line for a message that is given up, then pass the record to the handlers of the site.

    Raises DiscardLogError if the line cannot be written.
    """
    record = _record(discard)
    try:
        # A filter of the site may mask values in the record, but not suppress the line.
        filtered: Any = LOGGER.filter(record)
        # Python < 3.12: a filter cannot replace the record.
        if not attach_handler().handle(filtered if isinstance(filtered, logging.LogRecord) else record):
            raise ValueError("a filter of its handler has rejected the line")
        record.is_in_discard_log = True
    except interrupts():
        raise
    except Exception as cause:  # a site may have replaced the formatter, or added filters
        raise DiscardLogError(f"The discard log {conf.MAIL_QUEUE_LOG_FILENAME} cannot be written: {cause}") from cause
    if LOGGER.isEnabledFor(record.levelno):
        try:
            LOGGER.handle(record)
        except interrupts():
            raise
        except Exception:  # noqa: BLE001 - a site's handler may raise anything; report it on stderr, as logging does
            logging.NullHandler().handleError(record)


def _record(discard: Discard) -> logging.LogRecord:
    text = "%s. Created:%s, Subject: %s, From:%s, To:%s. Error: %s. Id: %s. Message-ID: %s"
    values = (
        discard.what,
        discard.created,
        discard.subject,
        discard.sender,
        ", ".join(map(str, discard.recipients)),
        str(discard.error).rstrip("."),
        discard.id,
        discard.message_id or "none",
    )
    return LOGGER.makeRecord(LOGGER.name, logging.WARNING, __file__, 0, text, values, None, "log_discard")
