"""The queues. ``open_queue(name)`` opens a queue on the engine that QUEUE_BACKEND names."""

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

#: The engine that is used when QUEUE_BACKEND is not set.
DEFAULT_BACKEND = "mailqueue_backend.queues.database"
#: The reason in an error message.
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
    """Wrap any queue-front queue as a MessageQueue; return a MessageQueue unchanged.

    A queue of redisd's own class, but not of a site's subclass, becomes our Redis queue on the same list.
    """
    if isinstance(queue, MessageQueue):
        return queue
    return RedisdQueue(queue.name) if type(queue).__module__ == REDISD else PlainQueue(queue)


def _import_backend(backend: str) -> ModuleType:
    """Import queue-front's own module of that name or else, as queue-front does, the module at that dotted path."""
    try:
        # A site's module may import queue_front, which imports the site's module in turn, so import queue_front first.
        import_module("queue_front")
        return _import_bundled(backend) or import_module(backend)
    except Exception as error:
        # queue-front hides the true cause behind its own exception; a module that could be imported has no Queue.
        cause = NO_QUEUE if backend in sys.modules else error.__context__ or error
        raise ConfigurationError(f"QUEUE_BACKEND = {backend!r} cannot be used: {cause}") from error


def _import_bundled(backend: str) -> ModuleType | None:
    """Import queue-front's own module of that name; return None if it has no such module."""
    path = f"queue_front.backends.{backend}"
    try:
        return import_module(path)
    except ModuleNotFoundError as error:
        if error.name and f"{path}.".startswith(f"{error.name}."):
            return None
        raise
