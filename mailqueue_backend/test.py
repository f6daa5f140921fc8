"""For the tests of a site that queues its mail: look at what the drain would deliver, without a server."""

from __future__ import annotations

from typing import Any

from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from .delivery.report import DrainResult
from .mail.base import QueueingMixin
from .mail.mailers import DEFAULT_ALIAS, configured


class _OutboxBackend(QueueingMixin, LocmemBackend):  # type: ignore[misc]
    """Delivers into ``django.core.mail.outbox``."""

    def _mailers(self) -> dict[str | None, QueueingMixin]:
        """Stand in for each mailer, those too that Django has replaced for the test run."""
        aliases: dict[str, Any] | None = configured()
        if aliases is None:
            return {None: self, DEFAULT_ALIAS: self}
        return {None: self, **{alias: type(self)(alias=alias, queue=self.queue_name) for alias in aliases}}


def deliver_to_outbox(queue: str | None = None) -> DrainResult:
    """Drain the queue, or the one of that name, into ``django.core.mail.outbox``; return (sent, discarded, length).

    The messages have gone through the queue as they do on the site: pickled, signed, opened again. On Django 6.1 with
    MAILERS, their ``sent_using`` is the mailer by which they were sent.
    """
    return _OutboxBackend(queue=queue).send_queued_messages()
