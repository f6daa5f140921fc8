"""Checks of the mailers: those in MAILERS, and the relay in EMAIL_BACKEND."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ..errors import ConfigurationError
from ..mail.mailers import import_backend, mailer_class, mailers_setting, make_mailer, queueing_aliases
from ..mail.relay import QueuedEmailBackend, delivering_class
from ..settings import conf


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
