"""The state of one mailer during a drain, shared by the workers.

Each change is a single assignment, or a single call of a set's method, so no lock is needed.
"""

from __future__ import annotations

import logging
from typing import Any

from ..logs import get_logger

logger = get_logger("delivery")


class Mailer:
    """One mailer in one drain: a backend, and whether it can deliver."""

    def __init__(self, backend: Any) -> None:
        #: A QueueingMixin. The first worker delivers through it, the others through copies.
        self.backend = backend
        #: Whether its class overrides the hook _send_queued_messages().
        self.has_own_hook: bool = backend._has_own_hook
        #: The error of the failed connection attempt, which is not repeated in this drain; None: not blocked.
        self.blocked: Exception | None = None
        #: Whether to pipeline commands if the server announces it; False once that has failed.
        self.pipelining = True
        #: The sessions that have an open connection.
        self.connected: set[Any] = set()

    def note_failed_connection(self, session: Any, error: Exception) -> bool:
        """Record that a session could not connect. Return whether others are connected; if not, block the mailer."""
        self.connected.discard(session)
        others_connected = bool(self.connected)
        if not others_connected:
            self.blocked = error
        # A server may limit the number of its connections, which needs no action.
        level = logging.INFO if others_connected else logging.WARNING
        alias = getattr(self.backend, "alias", None) or "default"
        logger.log(level, "No connection can be made (mailer %r): %s", alias, error, exc_info=not others_connected)
        return others_connected
