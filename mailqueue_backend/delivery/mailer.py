"""What a drain knows of one mailer; its workers share it.

Each attribute has one kind of change, which is one assignment or one call of a set: no lock is needed.
"""

from __future__ import annotations

import logging
from typing import Any

from ..logs import get_logger

logger = get_logger("delivery")


class Mailer:
    """One mailer in one drain: a backend, and whether it can be used."""

    def __init__(self, backend: Any) -> None:
        #: A QueueingMixin. The first worker delivers by it, the others by copies.
        self.backend = backend
        #: Its class overrides the hook _send_queued_messages().
        self.has_own_hook: bool = backend._has_own_hook
        #: Why no connection can be made; it is tried once in a drain, and not once for each message.
        self.blocked: Exception | None = None
        #: Commands are pipelined where the server announces it; False once that has failed.
        self.pipelining = True
        #: The sessions that have a connection now.
        self.connected: set[Any] = set()

    def note_failed_connection(self, session: Any, error: Exception) -> bool:
        """Note that a session gets no connection; return whether others have one, and it may leave the work to them."""
        self.connected.discard(session)
        others = bool(self.connected)
        if not others:
            self.blocked = error
        # A server may limit its connections; that is nothing to worry about.
        level = logging.INFO if others else logging.WARNING
        alias = getattr(self.backend, "alias", None) or "default"
        logger.log(level, "No connection can be made (mailer %r): %s", alias, error, exc_info=not others)
        return others
