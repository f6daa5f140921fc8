"""Django 6.1's mailers: which of them queue, and which queues the command drains."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from time import monotonic
from typing import Any

from django.core import mail
from django.core.mail.backends import console, dummy, locmem
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.utils.module_loading import import_string

from ..delivery.limits import DrainOptions
from ..errors import ConfigurationError, interrupts
from ..logs import get_logger
from ..settings import conf

logger = get_logger("delivery")

#: The backend that drains if EMAIL_BACKEND is not one of ours, as in 0.1.2.
OUR_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
#: Backends of development, staging and tests, which deliver to nobody (the file backend is a console backend). A queue
#: that such a site can see may be production's.
DELIVER_TO_NOBODY = (console.EmailBackend, dummy.EmailBackend, locmem.EmailBackend)
#: Django's alias for the mailer that sends messages without an alias.
DEFAULT_ALIAS = "default"


def mailers_setting() -> dict[str, Any] | None:
    """Return MAILERS; None if EMAIL_BACKEND is used instead."""
    # Django < 6.1: the setting has no meaning.
    return conf.MAILERS if hasattr(mail, "mailers") else None


def queueing_aliases() -> list[str]:
    """Return the aliases in MAILERS that queue their mail, and those whose class cannot be imported, since they may."""
    return [alias for alias in mailers_setting() or {} if _may_queue(alias)]


def _may_queue(alias: str) -> bool:
    try:
        return is_queueing(mailer_class(alias))
    except ConfigurationError:
        return True


def mailer_class(alias: str) -> type:
    """Import the backend class of a mailer. Raises ConfigurationError."""
    config = (mailers_setting() or {})[alias]
    return import_backend(f"MAILERS[{alias!r}]", config.get("BACKEND", "django.core.mail.backends.smtp.EmailBackend"))


def import_backend(setting: str, path: str) -> type:
    """Import the backend class that a setting names. Raises ConfigurationError, which names the setting."""
    try:
        backend_class: type = import_string(path)
    except interrupts():
        raise
    except Exception as error:  # a site's module may raise anything
        raise ConfigurationError(f"{setting}: {path!r} cannot be imported: {error}") from error
    return backend_class


def is_queueing(backend_class: type) -> bool:
    """Return whether a backend class is one of ours, which queues messages."""
    return hasattr(backend_class, "send_queued_messages")


def make_mailer(alias: str) -> Any:
    """Return the backend of a mailer. Raises ConfigurationError."""
    try:
        return mail.mailers[alias]
    except interrupts():
        raise
    except Exception as error:  # Django's InvalidMailer, or any error of a site's class
        raise ConfigurationError(f"The mailer {alias!r} cannot be used: {error}") from error


def queueing_mailers() -> tuple[dict[str | None, Any], list[ConfigurationError]]:
    """Return the backends of the mailers that queue, by alias, and the errors of those that cannot be made."""
    mailers: dict[str | None, Any] = {}
    errors: list[ConfigurationError] = []
    for alias in queueing_aliases():
        try:
            mailers[alias] = make_mailer(alias)
        except ConfigurationError as error:
            errors.append(error)
    return mailers, errors


def queue_names() -> list[str]:
    """Return the names of the site's queues, the default one first."""
    return list(dict.fromkeys([conf.MAIL_QUEUE_NAME, *(each.queue_name for each in queueing_mailers()[0].values())]))


def with_mailer_for_unnamed(mailers: dict[str | None, Any], queue_name: str) -> dict[str | None, Any]:
    """Return the mailers with one more under the key None, for the messages in this queue that name no mailer.

    It is the only mailer of the queue, or the default one. If the queue has several, and the default is not one of
    them, nothing is added.
    """
    here = {alias: backend for alias, backend in mailers.items() if backend.queue_name == queue_name}
    alias = next(iter(here)) if len(here) == 1 else DEFAULT_ALIAS
    return {**mailers, None: here[alias]} if alias in here else {**mailers}


def backends_to_drain(using: str | None = None) -> list[Any]:
    """Return one backend for each queue to drain, or only the backend of the mailer ``using``.

    They are those of the mailers in MAILERS that queue. Without MAILERS, it is the one of EMAIL_BACKEND if that queues,
    or else QueuedEmailBackend. The list is empty if EMAIL_BACKEND delivers to nobody, as in a test run.
    Raises ConfigurationError if ``using`` is not a mailer that queues, or if no mailer can be used.
    """
    if mailers_setting() is None:
        if using not in (None, DEFAULT_ALIAS):
            raise ConfigurationError(
                f"There is no mailer {using!r}: without MAILERS the only one is {DEFAULT_ALIAS!r}."
            )
        return _backend_from_settings()
    aliases = queueing_aliases()
    if not aliases or using is None:
        return _one_backend_per_queue()
    if using not in aliases:
        raise ConfigurationError(f"MAILERS has no {using!r} that queues its mail; those that do: {aliases}.")
    return [make_mailer(using)]


def drain_all(backends: Iterable[Any], options: DrainOptions, *expire: float) -> Iterator[tuple[int, int, int]]:
    """Drain one queue after the other, and yield the figures of each. The limits apply to all of them together."""
    end = None if options.time_limit is None else monotonic() + options.time_limit
    for backend in backends:
        backend.options = options
        yield backend.send_queued_messages(*expire)
        limit = None if options.limit is None else max(options.limit - backend.report.tried, 0)
        time_limit = None if end is None else max(end - monotonic(), 0)
        options = replace(options, limit=limit, time_limit=time_limit)


def _one_backend_per_queue() -> list[Any]:
    """Return the first mailer of each queue. Log a mailer that cannot be used, and drain the others."""
    mailers, errors = queueing_mailers()
    if errors and not mailers:
        raise errors[0]
    for error in errors:
        logger.error("%s. The messages that it has queued wait until it can be used, or until they expire.", error)
    first: dict[str, Any] = {}
    for backend in mailers.values():
        first.setdefault(backend.queue_name, backend)
    return list(first.values())


def _backend_from_settings() -> list[Any]:
    chosen = import_backend("EMAIL_BACKEND", conf.EMAIL_BACKEND)
    if is_queueing(chosen):
        # Django < 6.1: mail.mailers does not exist.
        return [mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()]
    delivers_to_nobody = issubclass(chosen, DELIVER_TO_NOBODY) and not issubclass(chosen, SMTPBackend)
    return [] if delivers_to_nobody else [import_string(OUR_BACKEND)()]


def why_nothing_is_drained() -> str:
    """Return the reason why backends_to_drain() is empty, as a sentence."""
    setting = f" (EMAIL_BACKEND is {conf.EMAIL_BACKEND})" if mailers_setting() is None else ""
    return f"No mailer of this site queues its mail here, so there is nothing to deliver{setting}."
