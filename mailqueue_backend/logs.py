"""The loggers of this package. Their records are not mailed through the queue, and no handler's error stops a drain.

A handler that sends mail, such as Django's AdminEmailHandler, would queue a message about each message that fails. The
new message would fail too, and be logged too: each drain would double the queue.
"""

from __future__ import annotations

import logging
from functools import partial
from threading import local

from .errors import interrupts

#: ``record`` is the record of this package that this thread is handling, or None.
in_handling = local()


def get_logger(name: str) -> logging.Logger:
    """Return the logger ``mailqueue_backend.NAME``."""
    logger = logging.getLogger(f"mailqueue_backend.{name}")
    logger.handle = partial(_handle, logger)  # type: ignore[method-assign]
    return logger


def _handle(logger: logging.Logger, record: logging.LogRecord) -> None:
    outer = getattr(in_handling, "record", None)
    in_handling.record = record
    try:
        type(logger).handle(logger, record)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's handler may raise anything; report it on stderr, as logging does
        logging.NullHandler().handleError(record)
    finally:
        in_handling.record = outer
