"""Django's mailers, which came with 6.1: which of them queue, and where."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.utils.module_loading import import_string

from ..settings import conf

#: The alias of a message that names none.
DEFAULT_ALIAS = "default"


def configured() -> dict[str, Any] | None:
    """Give MAILERS; None where EMAIL_BACKEND decides."""
    # Django < 6.1: the setting means nothing.
    return conf.MAILERS if hasattr(mail, "mailers") else None


def queueing_aliases() -> list[str]:
    """Name the mailers of MAILERS that queue their mail; none where MAILERS is not set."""
    return [alias for alias in configured() or {} if queues(mailer_class(alias))]


def mailer_class(alias: str) -> type:
    """Import the class of a mailer."""
    config = (configured() or {})[alias]
    found: type = import_string(config.get("BACKEND", "django.core.mail.backends.smtp.EmailBackend"))
    return found


def queues(backend_class: type) -> bool:
    """Tell whether a backend is one of ours: it stores what it is given."""
    return hasattr(backend_class, "send_queued_messages")


def mailer(alias: str) -> Any:
    """Make the backend of a mailer."""
    return mail.mailers[alias]


def sharing(queue_name: str) -> dict[str, Any]:
    """Make the backends that use a queue, by alias."""
    backends = {alias: mailer(alias) for alias in queueing_aliases()}
    return {alias: backend for alias, backend in backends.items() if backend.queue_name == queue_name}
