"""For the tests of a site that queues its mail: look at what the drain would deliver, without a server."""

from __future__ import annotations

from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from .delivery.outcomes import DrainResult
from .mail.base import QueueingMixin
from .mail.mailers import DEFAULT_ALIAS, queueing_aliases


class _OutboxBackend(QueueingMixin, LocmemBackend):  # type: ignore[misc]
    """Delivers into ``django.core.mail.outbox``."""

    parallel = False

    def _mailers(self) -> dict[str, QueueingMixin]:
        return dict.fromkeys([DEFAULT_ALIAS, *queueing_aliases()], self)


def deliver_to_outbox(queue: str | None = None) -> DrainResult:
    """Drain the queue, or the one of that name, into ``django.core.mail.outbox``; give (sent, discarded, length).

    The messages went through the queue as they do on the site: pickled, signed, opened again.
    """
    return _OutboxBackend(queue=queue).send_queued_messages()
