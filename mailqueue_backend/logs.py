"""The loggers of this package: what they say is not mailed through the queue, and no handler stops a drain.

A handler that mails (Django's AdminEmailHandler) would queue a message about each message that fails. That one
fails as well, and is logged as well: each drain would double the queue.
"""

from __future__ import annotations

import logging
from functools import partial
from threading import local

from .errors import interrupts

#: ``record``: a record of ours that is being handled in this thread.
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
    except Exception:  # noqa: BLE001 - a site's handler may raise anything; said on stderr, as logging does
        logging.NullHandler().handleError(record)
    finally:
        in_handling.record = outer
