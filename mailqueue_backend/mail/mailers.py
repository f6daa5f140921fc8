"""Django's mailers, which came with 6.1: which of them queue, and where."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.utils.module_loading import import_string

from ..errors import ConfigurationError
from ..settings import conf

#: The mailer of a message that names none.
DEFAULT_ALIAS = "default"


def configured() -> dict[str, Any] | None:
    """Give MAILERS; None where EMAIL_BACKEND decides."""
    # Django < 6.1: the setting means nothing.
    return conf.MAILERS if hasattr(mail, "mailers") else None


def queueing_aliases() -> list[str]:
    """Name the mailers of MAILERS that queue their mail, and those whose class cannot be imported: they may."""
    return [alias for alias in configured() or {} if _may_queue(alias)]


def _may_queue(alias: str) -> bool:
    try:
        return queues(mailer_class(alias))
    except ConfigurationError:
        return True


def mailer_class(alias: str) -> type:
    """Import the class of a mailer. Raises ConfigurationError."""
    config = (configured() or {})[alias]
    return imported(f"MAILERS[{alias!r}]", config.get("BACKEND", "django.core.mail.backends.smtp.EmailBackend"))


def imported(where: str, path: str) -> type:
    """Import the backend that a setting names. Raises ConfigurationError, which tells where."""
    try:
        found: type = import_string(path)
    except Exception as error:  # a module that is not ours may raise anything
        raise ConfigurationError(f"{where}: {path!r} cannot be imported: {error}") from error
    return found


def queues(backend_class: type) -> bool:
    """Tell whether a backend is one of ours: it stores what it is given."""
    return hasattr(backend_class, "send_queued_messages")


def mailer(alias: str) -> Any:
    """Make the backend of a mailer. Raises ConfigurationError."""
    try:
        return mail.mailers[alias]
    except Exception as error:  # Django's InvalidMailer, or whatever a site's class raises
        raise ConfigurationError(f"The mailer {alias!r} cannot be used: {error}") from error


def queueing_mailers() -> tuple[dict[str | None, Any], list[ConfigurationError]]:
    """Make the backends of the mailers that queue, by alias; and tell why others cannot be made."""
    mailers: dict[str | None, Any] = {}
    errors: list[ConfigurationError] = []
    for alias in queueing_aliases():
        try:
            mailers[alias] = mailer(alias)
        except ConfigurationError as error:
            errors.append(error)
    return mailers, errors


def with_unnamed(mailers: dict[str | None, Any], queue_name: str) -> dict[str | None, Any]:
    """Add, as None, the mailer of what is in this queue and names none: the only one that queues there, or the default.

    Where there are several, and the default is not among them, none is added: it would be a guess.
    """
    here = {alias: backend for alias, backend in mailers.items() if backend.queue_name == queue_name}
    alias = next(iter(here)) if len(here) == 1 else DEFAULT_ALIAS
    return {**mailers, None: here[alias]} if alias in here else {**mailers}
