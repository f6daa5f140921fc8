"""Which backends the command drains."""

from __future__ import annotations

from typing import cast

from django.core import mail
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.utils.module_loading import import_string

from ..settings import conf
from .base import QueueingMixin
from .smtp import QueuedEmailBackend


def backends_to_drain() -> list[QueueingMixin]:
    """Give the mailers that are ours; without MAILERS the backend of EMAIL_BACKEND, or else QueuedEmailBackend.

    None is ours in a test run, where Django has put its locmem backend in the place of all others.
    """
    if conf.MAILERS is not None:
        mailers = [mail.mailers[alias] for alias in conf.MAILERS if issubclass(_mailer_class(alias), QueueingMixin)]
        return cast(list[QueueingMixin], mailers)
    # Django < 6.1: there are no mailers.
    backend = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    if isinstance(backend, LocmemBackend):
        return []
    return [backend if isinstance(backend, QueueingMixin) else QueuedEmailBackend()]


def _mailer_class(alias: str) -> type:
    backend: type = import_string(
        mail.mailers.settings[alias].get("BACKEND", "django.core.mail.backends.smtp.EmailBackend")
    )
    return backend
