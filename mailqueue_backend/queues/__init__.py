"""The queues: ``open_queue(name)`` opens the one that QUEUE_BACKEND names."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import Any

from ..errors import ConfigurationError
from ..settings import conf
from .base import MessageQueue
from .plain import PlainQueue
from .redis import RedisdQueue

#: Where mail is queued when QUEUE_BACKEND is not set.
DEFAULT_BACKEND = "mailqueue_backend.queues.database"
NO_QUEUE = "the module has no class Queue"
#: The module of queue-front that our Redis queue replaces.
REDISD = "queue_front.backends.redisd"


def open_queue(name: str) -> MessageQueue:
    """Open the queue of this name on the engine that QUEUE_BACKEND names.

    Raises ConfigurationError when the engine's module cannot be used.
    """
    backend = conf.QUEUE_BACKEND
    if not backend:
        return adapt(import_module(DEFAULT_BACKEND).Queue(name))
    if backend == "redisd":
        return RedisdQueue(name)
    module = _import_backend(backend)
    try:
        queue_class = module.Queue
    except AttributeError as error:
        raise ConfigurationError(f"QUEUE_BACKEND = {backend!r} cannot be used: {NO_QUEUE}") from error
    return adapt(queue_class(name))


def adapt(queue: Any) -> MessageQueue:
    """Wrap any queue-front queue as a MessageQueue; return a MessageQueue as it is.

    A queue of redisd's own class (not a site's subclass of it) becomes our Redis queue on the same list.
    """
    if isinstance(queue, MessageQueue):
        return queue
    return RedisdQueue(queue.name) if type(queue).__module__ == REDISD else PlainQueue(queue)


def _import_backend(backend: str) -> ModuleType:
    """Import queue-front's module of that name, else the module at that dotted path, as queue-front does."""
    try:
        # A site's module may import queue_front, which imports the site's module in turn, so import queue_front first.
        import_module("queue_front")
        return _bundled(backend) or import_module(backend)
    except Exception as error:
        # queue-front hides the true cause behind its own exception; a module that could be imported has no Queue.
        cause = NO_QUEUE if backend in sys.modules else error.__context__ or error
        raise ConfigurationError(f"QUEUE_BACKEND = {backend!r} cannot be used: {cause}") from error


def _bundled(backend: str) -> ModuleType | None:
    path = f"queue_front.backends.{backend}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name and f"{path}.".startswith(f"{error.name}."):
            return None
        raise
