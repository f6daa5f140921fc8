"""System checks: report wrong settings before any mail is queued."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Tags, Warning, register

from .errors import ConfigurationError
from .mail.mailers import import_backend, mailer_class, mailers_setting, make_mailer, queueing_aliases
from .mail.relay import QueuedEmailBackend, delivering_class
from .queues import open_queue
from .settings import Settings, conf

#: The reason why each of these queue-front modules cannot hold mail on Python 3.
_UNUSABLE = {
    "beanstalkd": "it needs beanstalkc, which is Python 2 only",
    "sqs": "it needs boto, which does not run on a current Python",
    "memcached": "memcached keeps only the last message",
}


@register(Tags.compatibility)
def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report each setting that has a wrong type."""
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
    """Report a queue engine that cannot be used."""
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
    """Report each mailer in MAILERS that queues, or may queue, and cannot be used."""
    problems: list[CheckMessage] = []
    with suppress(ConfigurationError):  # MAILERS has a wrong type, which check_settings() reports
        for alias in queueing_aliases():
            problems.extend(_problems_of(alias))
    return problems


def _problems_of(alias: str) -> Iterator[CheckMessage]:
    try:
        mailer_class(alias)
    except ConfigurationError as error:
        # Only a warning: it may be another package's backend that is not installed on this machine.
        yield Warning(str(error), id="mailqueue_backend.W002")
        return
    try:
        make_mailer(alias)
    except ConfigurationError as error:
        yield Error(str(error), id="mailqueue_backend.E003")


@register(Tags.compatibility)
def check_relay(**kwargs: Any) -> list[CheckMessage]:
    """Report a relay in EMAIL_BACKEND that has no backend to deliver with, or one that queues."""
    try:
        if mailers_setting() is None and (conf.MAIL_QUEUE_DELIVERY_BACKEND or _is_relay(conf.EMAIL_BACKEND)):
            delivering_class(None)
    except ConfigurationError as error:
        return [Error(str(error), id="mailqueue_backend.E003")]
    return []


def _is_relay(path: str) -> bool:
    try:
        return issubclass(import_backend("EMAIL_BACKEND", path), QueuedEmailBackend)
    except ConfigurationError:
        return False  # Django raises the error when it uses the backend
