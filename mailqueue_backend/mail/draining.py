"""Which queues the command drains, and with which backends."""

from __future__ import annotations

from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend

from ..errors import ConfigurationError
from .base import QueueingMixin
from .mailers import configured, mailer, queueing_aliases
from .smtp import QueuedEmailBackend


def backends_to_drain(using: str | None = None) -> list[QueueingMixin]:
    """Give a backend for each queue of ours: all of them, or that of the mailer ``using``.

    Those of the mailers in MAILERS that queue; without MAILERS that of EMAIL_BACKEND, or else QueuedEmailBackend.
    None is ours in a test run, where Django has put its locmem backend in the place of all others.
    Raises ConfigurationError when ``using`` is not one of ours.
    """
    if configured() is None:
        return [] if using not in (None, "default") else _backend_of_the_settings()
    aliases = queueing_aliases()
    if using is not None:
        if using not in aliases:
            raise ConfigurationError(f"MAILERS has no {using!r} that queues its mail; those that do: {aliases}.")
        aliases = [using]
    backends = [mailer(alias) for alias in aliases]
    return list({backend.queue_name: backend for backend in reversed(backends)}.values())[::-1]


def _backend_of_the_settings() -> list[QueueingMixin]:
    # Django < 6.1: there are no mailers.
    backend = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    if isinstance(backend, LocmemBackend):
        return []
    return [backend if isinstance(backend, QueueingMixin) else QueuedEmailBackend()]
