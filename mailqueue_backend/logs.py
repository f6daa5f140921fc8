"""The loggers of this package. Their records are not mailed through the queue, and no handler's error stops a drain.

A handler that sends mail, such as Django's AdminEmailHandler, would queue a message about each message that fails. The
new message would fail too, and be logged too: each drain would double the queue.
"""

from __future__ import annotations

import logging
from collections import deque
from functools import partial
from threading import local
from typing import Any

from .errors import interrupts

#: Texts shorter than this may occur in other mail.
SHORTEST_TEXT = 30

#: ``record`` is the record of this package that this thread is handling, or None.
_in_handling = local()
#: The first lines of the latest records of this package: a handler may send its mail later, or in another thread.
_texts: deque[str] = deque(maxlen=1000)


def get_logger(name: str) -> logging.Logger:
    """Return the logger ``mailqueue_backend.NAME``."""
    logger = logging.getLogger(f"mailqueue_backend.{name}")
    logger.handle = partial(_handle_safely, logger)  # type: ignore[method-assign]
    return logger


def handle_as_ours(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Pass a record to the logger's handlers, and refuse the mail that they send about it."""
    outer = getattr(_in_handling, "record", None)
    _in_handling.record = record
    _texts.append(record.getMessage().partition("\n")[0])
    try:
        type(logger).handle(logger, record)
    finally:
        _in_handling.record = outer


def is_about_our_records(message: Any) -> bool:
    """Return whether a log handler sends this message about a record of this package.

    The text of such a record is in the subject or in the first line of the body. Mail that quotes it elsewhere is a
    person's.
    """
    if getattr(_in_handling, "record", None) is not None:
        return True
    if not _texts:
        return False
    first_line = str(getattr(message, "body", "")).lstrip().partition("\n")[0]
    headline = f"{getattr(message, 'subject', '')}\n{first_line}"
    return any(text in headline for text in list(_texts) if len(text) >= SHORTEST_TEXT)


def _handle_safely(logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        handle_as_ours(logger, record)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's handler may raise anything; report it on stderr, as logging does
        logging.NullHandler().handleError(record)
