"""A helper for the tests of a site that queues its mail: drain the queue without a mail server."""

from __future__ import annotations

from typing import Any

from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from .delivery.report import DrainResult
from .mail.base import QueueingMixin
from .mail.mailers import DEFAULT_ALIAS, mailers_setting


class _OutboxBackend(QueueingMixin, LocmemBackend):  # type: ignore[misc]
    """Delivers into ``django.core.mail.outbox``."""

    def _mailers(self) -> dict[str | None, QueueingMixin]:
        """Return a backend of this class for each mailer, including those that Django replaces in a test run."""
        aliases: dict[str, Any] | None = mailers_setting()
        if aliases is None:
            return {None: self, DEFAULT_ALIAS: self}
        return {None: self, **{alias: type(self)(alias=alias, queue=self.queue_name) for alias in aliases}}


def deliver_to_outbox(queue: str | None = None) -> DrainResult:
    """Drain the default queue, or the named one, into ``django.core.mail.outbox``; return (sent, discarded, length).

    The messages pass through the queue as they do on the site: they are pickled, signed and opened again. On Django
    6.1 with MAILERS, ``sent_using`` is the alias of the mailer that queued the message.
    """
    return _OutboxBackend(queue=queue).send_queued_messages()
