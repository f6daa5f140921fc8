"""Which queues the command drains, and with which backends."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from ..delivery.outcomes import Report
from ..delivery.quota import DrainOptions
from ..errors import ConfigurationError
from ..logs import get_logger
from ..settings import conf
from .base import QueueingMixin
from .mailers import DEFAULT_ALIAS, configured, imported, mailer, queueing_aliases, queueing_mailers
from .smtp import QueuedEmailBackend

logger = get_logger("delivery")


def backends_to_drain(using: str | None = None) -> list[QueueingMixin]:
    """Give a backend for each queue of ours: all of them, or that of the mailer ``using``.

    Those of the mailers in MAILERS that queue; without MAILERS that of EMAIL_BACKEND, or else QueuedEmailBackend.
    None is ours in a test run, where Django has put its locmem backend in the place of all others.
    Raises ConfigurationError when ``using`` is not one of ours, or no mailer can be used.
    """
    if configured() is None:
        if using not in (None, DEFAULT_ALIAS):
            raise ConfigurationError(
                f"There is no mailer {using!r}: without MAILERS the only one is {DEFAULT_ALIAS!r}."
            )
        return _backend_of_the_settings()
    aliases = queueing_aliases()
    if not aliases or using is None:
        return _one_for_each_queue()
    if using not in aliases:
        raise ConfigurationError(f"MAILERS has no {using!r} that queues its mail; those that do: {aliases}.")
    return [mailer(using)]


def drained(backends: Iterable[QueueingMixin], options: DrainOptions, *expire: float) -> Iterator[tuple[int, int, int]]:
    """Drain one queue after the other, and give the three figures of each; the limits are for all together."""
    end = None if options.time_limit is None else monotonic() + options.time_limit
    for backend in backends:
        backend.options = options
        yield backend.send_queued_messages(*expire)
        limit = None if options.limit is None else max(options.limit - _tried(backend.report), 0)
        time_limit = None if end is None else max(end - monotonic(), 0)
        options = replace(options, limit=limit, time_limit=time_limit)


def _tried(report: Report) -> int:
    return report.sent + report.requeued + report.discarded + report.buried


def _one_for_each_queue() -> list[QueueingMixin]:
    """Give the first mailer of each queue; one that cannot be used does not hold up the others' mail."""
    mailers, errors = queueing_mailers()
    if errors and not mailers:
        raise errors[0]
    for error in errors:
        logger.error("%s. What it has queued waits until it expires.", error)
    queues: dict[str, QueueingMixin] = {}
    for backend in mailers.values():
        queues.setdefault(backend.queue_name, backend)
    return list(queues.values())


def _backend_of_the_settings() -> list[QueueingMixin]:
    chosen = imported("EMAIL_BACKEND", conf.EMAIL_BACKEND)
    if issubclass(chosen, QueueingMixin):
        # Django < 6.1: there are no mailers.
        backend: Any = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
        return [backend]
    return [] if issubclass(chosen, LocmemBackend) else [QueuedEmailBackend()]
