"""System checks: a wrong setting is said by ``manage.py check``, before mail depends on it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register

from .errors import ConfigurationError
from .mail.mailers import configured, imported, mailer, mailer_class, queueing_aliases
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
    try:
        problems.extend(_warn_of_engine(conf.QUEUE_BACKEND))
        open_queue(conf.MAIL_QUEUE_NAME)
    except ConfigurationError as error:
        problems.append(Error(str(error), id="mailqueue_backend.E002"))
    return problems


def _warn_of_engine(backend: str | None) -> Iterator[CheckMessage]:
    if backend in _UNUSABLE:
        yield Warning(
            f"QUEUE_BACKEND = {backend!r} cannot hold mail: {_UNUSABLE[backend]}.",
            hint="Use redisd, or leave QUEUE_BACKEND out and use the database queue.",
            id="mailqueue_backend.W001",
        )


@register(Tags.compatibility)
def check_mailers(**kwargs: Any) -> list[CheckMessage]:
    """Report a mailer of MAILERS that queues, or may, and cannot be used: a relay onto a queue, say."""
    problems: list[CheckMessage] = []
    with suppress(ConfigurationError):  # in MAILERS itself: check_settings() tells
        for alias in queueing_aliases():
            problems.extend(_problems_of(alias))
    return problems


def _problems_of(alias: str) -> Iterator[CheckMessage]:
    try:
        mailer_class(alias)
    except ConfigurationError as error:
        # Perhaps it is none of ours, and not needed on this machine.
        yield Warning(str(error), id="mailqueue_backend.W002")
        return
    try:
        mailer(alias)
    except ConfigurationError as error:
        yield Error(str(error), id="mailqueue_backend.E003")


@register(Tags.compatibility)
def check_relay(**kwargs: Any) -> list[CheckMessage]:
    """Report, where EMAIL_BACKEND decides, a relay without a backend that delivers, or onto a queue."""
    try:
        if configured() is None and (conf.MAIL_QUEUE_DELIVERY_BACKEND or _relays(conf.EMAIL_BACKEND)):
            delivering_class(None)
    except ConfigurationError as error:
        return [Error(str(error), id="mailqueue_backend.E003")]
    return []


def _relays(path: str) -> bool:
    try:
        return issubclass(imported("EMAIL_BACKEND", path), QueuedEmailBackend)
    except ConfigurationError:
        return False  # Django tells, once it is needed
