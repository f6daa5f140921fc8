"""All errors of this package.

::

    MailQueueError
    ├── QueueUnavailable      the queue's engine cannot be reached, or reports an error
    │   └── PayloadRefused    it does not store the new payload of one message
    ├── UnstorableMessage     a message that cannot be pickled or rendered, or is too large; also a pickle.PicklingError
    ├── Unreadable            a payload that cannot be opened; it goes to the dead queue
    │   └── UnknownClass      a class that it needs cannot be imported in this process; another one may have it
    ├── DiscardLogError       the discard log cannot be written; the message stays queued
    └── ConfigurationError    a setting is wrong; also Django's ImproperlyConfigured
"""

import sys
from pickle import PicklingError
from typing import Any

from django.core.exceptions import ImproperlyConfigured


class MailQueueError(Exception):
    """Base class of all errors of this package."""


class QueueUnavailable(MailQueueError):
    """The queue's engine cannot be reached, or reports an error; ``__cause__`` is the driver's error."""


class PayloadRefused(QueueUnavailable):
    """The engine does not store the payload of a released message; ``receipt`` is that of its reservation.

    A connection that is lost at this step may look the same, so try twice.
    """

    def __init__(self, text: str, receipt: Any) -> None:
        super().__init__(text)
        self.receipt = receipt


class UnstorableMessage(MailQueueError, PicklingError):
    """A message cannot be pickled, never rendered, or is too large for the queue.

    No message of the same send_messages() call was queued.
    """


class Unreadable(MailQueueError):
    """A payload cannot be read as a message; the error does not quote its content."""


class UnknownClass(Unreadable):
    """A payload needs a class that cannot be imported in this process, but perhaps after a rolling deploy."""


class DiscardLogError(MailQueueError):
    """A discard could not be logged; the message stays queued."""


class ConfigurationError(MailQueueError, ImproperlyConfigured):
    """A setting is missing or wrong; the message says how to correct it."""

    def __init__(self, problem: str, hint: str = "") -> None:
        super().__init__(f"{problem} {hint}".rstrip())
        #: What is wrong, and what to write instead; system checks show them separately.
        self.problem, self.hint = problem, hint


def interrupts() -> tuple[type[Exception], ...]:
    """Return the subclasses of Exception that must end a drain: the one of Celery's soft time limit, if it is loaded.

    Write ``except interrupts(): raise`` before each ``except Exception``.
    """
    billiard = sys.modules.get("billiard.exceptions")
    return () if billiard is None else (billiard.SoftTimeLimitExceeded,)
