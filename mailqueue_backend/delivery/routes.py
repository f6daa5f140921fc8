"""Which backend delivers which message: that of the mailer by which it was sent."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, ExitStack
from datetime import datetime
from types import TracebackType
from typing import Any, Protocol

from ..logs import get_logger
from ..queues.base import MessageQueue
from .deadlines import Deadline, Watchdog
from .outcomes import Outcome
from .quota import DrainOptions

logger = get_logger("delivery")


class Backend(Protocol):
    """What a drain needs of a backend; mail.base.QueueingMixin has it."""

    que: MessageQueue
    options: DrainOptions
    #: Other workers have a connection: one that gets none leaves the work to them.
    helping: bool

    @property
    def queue_name(self) -> str: ...

    @property
    def unreachable(self) -> bool: ...

    @property
    def leaving(self) -> bool: ...

    @property
    def parallel(self) -> bool: ...

    def _delivering(
        self, deadline: Deadline | None = None, connected: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]: ...

    def _helper(self) -> Backend: ...

    def _mailers(self) -> Mapping[str | None, Backend]: ...

    def _wrap(self, email: Any, created: datetime | None = None, **kwargs: Any) -> bytes: ...

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]: ...

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome: ...


class Route:
    """One backend, and the time that it has for a message."""

    def __init__(self, backend: Backend, deadline: Deadline) -> None:
        self.backend = backend
        self.deadline = deadline

    def deliver(self, message: Any, expired: datetime, fields: dict[str, Any], seconds: float) -> Outcome:
        """Ask the hook; an error of its own is a failure like any other."""
        self.deadline.start(seconds)
        try:
            return Outcome(*self.backend._send_queued_messages(message, expired, fields))
        except Exception as error:  # a site's hook may raise anything
            logger.exception("The hook _send_queued_messages() failed.")
            return self.backend._failed(message, expired, fields, error)
        finally:
            self.deadline.clear()


class Routes:
    """The backends of one worker, by alias, each made ready when its first message comes.

    The alias None is that of a message that names none.
    """

    def __init__(
        self,
        main: Backend,
        mailers: Mapping[str | None, Backend],
        watchdog: Watchdog,
        connected: Callable[[], None] | None = None,
    ) -> None:
        self.main = main
        self._mailers = mailers
        self._watchdog = watchdog
        self._connected = connected
        self._ready: dict[int, Route] = {}
        self._stack = ExitStack()

    def __enter__(self) -> Routes:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()
        self._ready.clear()

    @property
    def several(self) -> bool:
        """Other mailers queue here as well, which may be reachable when one is not."""
        name = self.main.queue_name
        return any(other is not self.main and other.queue_name == name for other in self._mailers.values())

    @property
    def parallel(self) -> bool:
        """All hooks may be called in several threads."""
        return all(backend.parallel for backend in self._mailers.values())

    def find(self, alias: str | None) -> Route | None:
        """Give the route of a mailer; None when there is no such mailer."""
        backend = self._mailers.get(alias)
        return None if backend is None else self._made_ready(backend)

    def _made_ready(self, backend: Backend) -> Route:
        route = self._ready.get(id(backend))
        if route is None:
            backend.options = self.main.options
            route = self._ready[id(backend)] = Route(backend, self._watchdog.new_deadline())
            self._stack.enter_context(backend._delivering(route.deadline, self._connected))
        return route

    def helpers(self) -> Routes:
        """Give the routes of another worker: copies of the same backends."""
        copies = {id(backend): backend._helper() for backend in self._mailers.values()}
        mailers = {alias: copies[id(backend)] for alias, backend in self._mailers.items()}
        return Routes(copies[id(self.main)], mailers, self._watchdog)
