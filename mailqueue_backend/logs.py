"""The loggers of this package. Their records are not mailed through the queue, and no handler's error stops a drain.

A handler that sends mail, such as Django's AdminEmailHandler, would queue a message about each message that fails. The
new message would fail too, and be logged too: each drain would double the queue.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
from contextlib import suppress
from functools import partial
from types import FrameType
from typing import Any

from .errors import interrupts

#: Texts shorter than this may occur in other mail.
SHORTEST_TEXT = 30

#: The first lines of the latest records of this package: a handler may send its mail later, or in another thread.
_texts: deque[str] = deque(maxlen=200)


def get_logger(name: str) -> logging.Logger:
    """Return the logger ``mailqueue_backend.NAME``."""
    logger = logging.getLogger(f"mailqueue_backend.{name}")
    logger.handle = partial(_handle_safely, logger)  # type: ignore[method-assign]
    return logger


def handle_as_ours(logger: logging.Logger, record: logging.LogRecord) -> None:
    """Pass a record to the logger's handlers. is_about_our_records() recognises the mail that they send about it."""
    with suppress(Exception):  # the handlers will meet the same error, and report it
        _texts.append(record.getMessage().partition("\n")[0])
    type(logger).handle(logger, record)


def is_about_our_records(message: Any) -> bool:
    """Return whether a log handler sends this message about a record of this package.

    The text of such a record is in the subject or in the first line of the body. Mail that quotes it elsewhere is a
    person's.
    """
    if _is_handling_record():
        return True
    if not _texts:
        return False
    first_line = str(getattr(message, "body", "")).lstrip().partition("\n")[0]
    headline = f"{getattr(message, 'subject', '')}\n{first_line}"
    return any(text in headline for text in list(_texts) if len(text) >= SHORTEST_TEXT)


def _is_handling_record() -> bool:
    """Return whether handle_as_ours() is running in this thread. A flag could stay set after an interrupt."""
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code is not handle_as_ours.__code__:
        frame = frame.f_back
    return frame is not None


def _handle_safely(logger: logging.Logger, record: logging.LogRecord) -> None:
    try:
        handle_as_ours(logger, record)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's handler may raise anything; report it on stderr, as logging does
        logging.NullHandler().handleError(record)
