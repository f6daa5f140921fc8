"""A queue in a table of the site's own database: mail is queued if and only if the transaction commits.

This is a separate app, so that only sites that use it get the table: add ``"mailqueue_backend.queues.database"`` to
INSTALLED_APPS and run ``manage.py migrate``. Like every QUEUE_BACKEND, this module has a class ``Queue``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .queue import Queue as Queue


def __getattr__(name: str) -> Any:
    """Import ``Queue`` on first access: Django imports this module as an app before models can be loaded."""
    if name != "Queue":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _require_app()
    from .queue import Queue

    return Queue


def _require_app() -> None:
    """Raise ConfigurationError if this app is not in INSTALLED_APPS."""
    from django.apps import apps

    from ...errors import ConfigurationError

    if not apps.is_installed(__name__):
        raise ConfigurationError(
            f'The database queue needs its table: add "{__name__}" to INSTALLED_APPS and run "manage.py migrate".'
        )
