"""Checks of the database queue: its alias, and its table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.core.checks import CheckMessage, Error, Warning
from django.db import DEFAULT_DB_ALIAS, connections, router
from django.db import Error as DatabaseError
from django.db.models import Model

from ..queues import DEFAULT_BACKEND
from .settings import value_of

_APP = "mailqueue_database"


def check_alias(**kwargs: Any) -> list[CheckMessage]:
    """Report a MAIL_QUEUE_DATABASE that is not in DATABASES."""
    alias = _alias()
    if alias is None or alias in connections:
        return []
    problem = f"MAIL_QUEUE_DATABASE = {alias!r}: there is no such alias in DATABASES."
    return [Error(problem, hint=f"Write one of: {', '.join(connections)}.", id="mailqueue_backend.E004")]


def check_router(**kwargs: Any) -> list[CheckMessage]:
    """Warn of a router that forbids the table; only a warning, since another project may create it."""
    alias = present_alias()
    if alias is None or _may_migrate(alias):
        return []
    return [
        Warning(
            f"A router in DATABASE_ROUTERS does not let migrate create the mail queue's table on {alias!r}.",
            hint=f"{_allow(alias)} If the table is created in another way, silence this warning.",
            id="mailqueue_backend.W006",
        )
    ]


def check_table(databases: Sequence[str] | None = None, **kwargs: Any) -> list[CheckMessage]:
    """Warn of a missing table on one of ``databases``; an error would stop the migrate that creates it."""
    alias = present_alias()
    if alias is None or alias not in (databases or ()):
        return []
    problem = _problem_of_table(alias)
    if problem is None:
        return []
    database = "" if alias == DEFAULT_DB_ALIAS else f" --database={alias}"
    migrate = f'Run "manage.py migrate {_APP}{database}". (migrate itself shows this, before it creates the table.)'
    return [Warning(problem, hint=migrate if _may_migrate(alias) else _allow(alias), id="mailqueue_backend.W007")]


def _problem_of_table(alias: str) -> str | None:
    """Return what is wrong with the table, if anything is."""
    table = _model()._meta.db_table
    try:
        if table in connections[alias].introspection.table_names():
            return None
    except DatabaseError as error:
        reason = str(error).partition("\n")[0]
        return f"The mail queue's table {table} on {alias!r} cannot be looked up: {reason}."
    return f"The mail queue's table {table} on {alias!r} does not exist."


def _alias() -> str | None:
    """Return the alias of the database queue; None if it is not used, or its settings have a wrong type."""
    if (value_of("QUEUE_BACKEND") or DEFAULT_BACKEND) != DEFAULT_BACKEND or not apps.is_installed(DEFAULT_BACKEND):
        return None
    alias: str | None = value_of("MAIL_QUEUE_DATABASE")
    return alias


def present_alias() -> str | None:
    """Return the alias of the database queue, if it is used and in DATABASES."""
    alias = _alias()
    return alias if alias is not None and alias in connections else None


def _may_migrate(alias: str) -> bool:
    return router.allow_migrate_model(alias, _model())


def _model() -> type[Model]:
    return apps.get_model(_APP, "QueuedMessage")


def _allow(alias: str) -> str:
    return (
        f'Let its allow_migrate() return True for the app label "{_APP}" on {alias!r}, and run '
        f'"manage.py migrate {_APP} --database={alias}"; or name another database in MAIL_QUEUE_DATABASE.'
    )
