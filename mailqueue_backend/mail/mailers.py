"""Django's mailers, which came with 6.1: which of them queue and where, and which queues the command drains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.utils.module_loading import import_string

from ..delivery.limits import DrainOptions
from ..errors import ConfigurationError, interrupts
from ..logs import get_logger
from ..settings import conf

logger = get_logger("delivery")

#: What drains where EMAIL_BACKEND is not ours, as in 0.1.2.
OUR_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
#: The mailer of a message that names none.
DEFAULT_ALIAS = "default"


def configured() -> dict[str, Any] | None:
    """Return MAILERS; None where EMAIL_BACKEND decides."""
    # Django < 6.1: the setting means nothing.
    return conf.MAILERS if hasattr(mail, "mailers") else None


def queueing_aliases() -> list[str]:
    """Return the mailers of MAILERS that queue their mail, and those whose class cannot be imported: they may."""
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
    """Import the backend that a setting names. Raises ConfigurationError, which says where."""
    try:
        found: type = import_string(path)
    except interrupts():
        raise
    except Exception as error:  # a module that is not ours may raise anything
        raise ConfigurationError(f"{where}: {path!r} cannot be imported: {error}") from error
    return found


def queues(backend_class: type) -> bool:
    """Return whether a backend is one of ours: it stores what it is given."""
    return hasattr(backend_class, "send_queued_messages")


def mailer(alias: str) -> Any:
    """Make the backend of a mailer. Raises ConfigurationError."""
    try:
        return mail.mailers[alias]
    except interrupts():
        raise
    except Exception as error:  # Django's InvalidMailer, or whatever a site's class raises
        raise ConfigurationError(f"The mailer {alias!r} cannot be used: {error}") from error


def queueing_mailers() -> tuple[dict[str | None, Any], list[ConfigurationError]]:
    """Make the backends of the mailers that queue, by alias; and the errors of those that cannot be made."""
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


def backends_to_drain(using: str | None = None) -> list[Any]:
    """Return a backend for each queue of ours: all of them, or that of the mailer ``using``.

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


def drain_all(backends: Iterable[Any], options: DrainOptions, *expire: float) -> Iterator[tuple[int, int, int]]:
    """Drain one queue after the other, and yield the three figures of each; the limits are for all together."""
    end = None if options.time_limit is None else monotonic() + options.time_limit
    for backend in backends:
        backend.options = options
        yield backend.send_queued_messages(*expire)
        limit = None if options.limit is None else max(options.limit - backend.report.tried, 0)
        time_limit = None if end is None else max(end - monotonic(), 0)
        options = replace(options, limit=limit, time_limit=time_limit)


def _one_for_each_queue() -> list[Any]:
    """Return the first mailer of each queue; one that cannot be used does not hold up the others' mail."""
    mailers, errors = queueing_mailers()
    if errors and not mailers:
        raise errors[0]
    for error in errors:
        logger.error("%s. What it has queued waits until it expires.", error)
    first: dict[str, Any] = {}
    for backend in mailers.values():
        first.setdefault(backend.queue_name, backend)
    return list(first.values())


def _backend_of_the_settings() -> list[Any]:
    chosen = imported("EMAIL_BACKEND", conf.EMAIL_BACKEND)
    if queues(chosen):
        # Django < 6.1: there are no mailers.
        return [mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()]
    return [] if issubclass(chosen, LocmemBackend) else [import_string(OUR_BACKEND)()]
