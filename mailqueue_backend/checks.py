"""System checks: a wrong setting is said by ``manage.py check``, before mail depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register

from .errors import ConfigurationError
from .mail.mailers import configured, mailer_class, queueing_aliases
from .mail.relay import QueuedEmailBackend, delivering_class
from .queues import open_queue
from .settings import Settings, conf

#: queue-front's modules that cannot hold mail on Python 3, and why.
_UNUSABLE = {
    "beanstalkd": "it needs beanstalkc, which is Python 2 only",
    "sqs": "it needs boto, which does not run on a current Python",
    "memcached": "memcached keeps only the last message",
}


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report each setting of a wrong type."""
    problems: list[CheckMessage] = []
    for name in vars(Settings):
        if name.isupper():
            try:
                getattr(conf, name)
            except ConfigurationError as error:
                problems.append(Error(str(error), id="mailqueue_backend.E001"))
    return problems


@register(Tags.compatibility)
def check_queue(**kwargs: Any) -> list[CheckMessage]:
    """Report an engine that cannot be used, and why."""
    problems: list[CheckMessage] = []
    backend = conf.QUEUE_BACKEND
    if backend in _UNUSABLE:
        problems.append(
            Warning(
                f"QUEUE_BACKEND = {backend!r} cannot hold mail: {_UNUSABLE[backend]}.",
                hint="Use redisd, or leave QUEUE_BACKEND out and use the database queue.",
                id="mailqueue_backend.W001",
            )
        )
    try:
        open_queue(conf.MAIL_QUEUE_NAME)
    except ConfigurationError as error:
        problems.append(Error(str(error), id="mailqueue_backend.E002"))
    return problems


@register(Tags.compatibility)
def check_relays(**kwargs: Any) -> list[CheckMessage]:
    """Report a relay without a backend that delivers, or onto a queue."""
    problems: list[CheckMessage] = []
    for where, alias in _relays():
        try:
            delivering_class(alias)
        except (ConfigurationError, ImportError) as error:
            problems.append(Error(f"{where}: {error}", id="mailqueue_backend.E003"))
    return problems


def _relays() -> Iterator[tuple[str, str | None]]:
    """Give where each relay is configured, and the mailer that shall deliver for it."""
    mailers = configured()
    if mailers is None:
        if conf.MAIL_QUEUE_DELIVERY_BACKEND:
            yield "MAIL_QUEUE_DELIVERY_BACKEND", None
        return
    for alias in queueing_aliases():
        if issubclass(mailer_class(alias), QueuedEmailBackend):
            yield f"MAILERS[{alias!r}]", mailers[alias].get("OPTIONS", {}).get("deliver_using")
