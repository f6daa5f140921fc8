"""Every error of this package.

::

    MailQueueError
    ├── QueueUnavailable      the engine behind a queue does not answer, or refuses
    ├── UnstorableMessage     a message that cannot be pickled; also a pickle.PicklingError
    ├── Unreadable            a payload that cannot be opened; it belongs in the dead queue
    │   └── UnknownClass      a class that it needs cannot be imported, or not yet: another process may have it
    ├── DiscardLogError       the discard log cannot be written; the message stays queued
    └── ConfigurationError    a setting is wrong; also Django's ImproperlyConfigured
"""

import sys
from pickle import PicklingError

from django.core.exceptions import ImproperlyConfigured


class MailQueueError(Exception):
    """Base of all errors that this package raises on purpose."""


class QueueUnavailable(MailQueueError):
    """The queue's engine cannot be reached or refuses to work; the driver's error is the cause."""


class UnstorableMessage(MailQueueError, PicklingError):
    """A message cannot be pickled, so it cannot be queued; nothing of its batch was."""


class Unreadable(MailQueueError):
    """A payload does not hold a message that can be read here; the reason quotes nothing of it."""


class UnknownClass(Unreadable):
    """A signed payload needs a class that cannot be imported here; after a rolling deploy it may be."""


class DiscardLogError(MailQueueError):
    """A discard could not be logged, so it must not happen."""


class ConfigurationError(MailQueueError, ImproperlyConfigured):
    """A setting is missing or wrong; the message says what to write."""


def interrupts() -> tuple[type[Exception], ...]:
    """Return the exceptions that end whatever runs, though they are Exceptions: that of Celery's soft time limit.

    For ``except interrupts(): raise``, before each broad except.
    """
    billiard = sys.modules.get("billiard.exceptions")
    return () if billiard is None else (billiard.SoftTimeLimitExceeded,)
