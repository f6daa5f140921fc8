"""The packages that are compared, each with its environment and the settings that its documentation recommends."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import needs
from environments import Environment

#: The root directory of this repository, which contains our package.
TOP = Path(__file__).resolve().parents[1]
DJANGO = "Django~=5.2.0"
#: SQLite options; Django >= 5.1 runs the command on each new connection.
WAL = {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL"}


class Contender(NamedTuple):
    """One row of the table of rates."""

    name: str
    environment: Environment
    #: The management command that delivers; None for Django's backend, which has no queue.
    command: str | None
    settings: dict[str, Any]
    #: The database it runs on: "sqlite", "wal" (SQLite in WAL mode) or "postgresql".
    database: str = "sqlite"
    #: Whether it delivers one message after the other, so that the time per message does not depend on their number.
    serial: bool = False

    def settings_in(self, directory: Path) -> dict[str, Any]:
        """Return all its settings; its files go into ``directory``. Raise Missing if a server is not available."""
        found = {"SECRET_KEY": "a key for the benchmark", "USE_TZ": True, **self.settings}
        found["DATABASES"] = {"default": self._database_in(directory)}
        # Unique names keep existing data untouched.
        found["MAIL_QUEUE_NAME"] = _unique_name()
        if self.settings.get("QUEUE_BACKEND") == "redisd":
            found["QUEUE_REDIS_CONNECTION"] = needs.redis()
        return found

    def _database_in(self, directory: Path) -> dict[str, Any]:
        if self.database == "postgresql":
            return {**needs.postgresql(), "TEST": {"NAME": _unique_name()}}
        sqlite = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "queue.sqlite3")}
        return {**sqlite, "OPTIONS": WAL} if self.database == "wal" else sqlite


def _unique_name() -> str:
    return f"mailqueue_benchmark_{uuid4().hex}"


def with_one_worker(contender: Contender) -> Contender:
    """Return a variant of our package that drains over one connection."""
    settings = {**contender.settings, "MAIL_QUEUE_WORKERS": 1}
    return contender._replace(name=f"{contender.name}, one worker", settings=settings)


def in_wal(contender: Contender) -> Contender:
    """Return a variant whose SQLite database is in WAL mode, with synchronous = NORMAL."""
    return contender._replace(name=f"{contender.name} in WAL", database="wal")


_OUR_BACKEND = {"EMAIL_BACKEND": "mailqueue_backend.mail.smtp.QueuedEmailBackend"}
_ON_REDIS = {**_OUR_BACKEND, "INSTALLED_APPS": ["mailqueue_backend"], "QUEUE_BACKEND": "redisd"}
_ON_DATABASE = {**_OUR_BACKEND, "INSTALLED_APPS": ["mailqueue_backend", "mailqueue_backend.queues.database"]}

_OURS = Environment(
    "ours", [DJANGO, "queue-front", "redis[hiredis]", "psycopg[binary]"], variables={"PYTHONPATH": str(TOP)}
)
_OLD = Environment("0.1.2", [DJANGO, "queue-front", "redis[hiredis]"], bare=["django-mailqueue-backend==0.1.2"])
_POST_OFFICE = Environment("post_office", [DJANGO, "django-post_office"])
_MAILER = Environment("mailer", [DJANGO, "django-mailer"])
_DJANGO = Environment("django", [DJANGO])

OURS_ON_REDIS = Contender("ours, Redis", _OURS, "process_mail_queue", _ON_REDIS)
OURS_ON_SQLITE = Contender("ours, SQLite", _OURS, "process_mail_queue", _ON_DATABASE)
OURS_ON_POSTGRESQL = Contender("ours, PostgreSQL", _OURS, "process_mail_queue", _ON_DATABASE, "postgresql")
OLD_ON_REDIS = Contender("0.1.2, Redis", _OLD, "process_mail_queue", _ON_REDIS, serial=True)
POST_OFFICE = Contender(
    "django-post_office, SQLite",
    _POST_OFFICE,
    "send_queued_mail",
    {
        "EMAIL_BACKEND": "post_office.EmailBackend",
        "INSTALLED_APPS": ["django.contrib.contenttypes", "post_office"],
        "TEMPLATES": [{"BACKEND": "django.template.backends.django.DjangoTemplates"}],
    },
)
MAILER = Contender(
    "django-mailer, SQLite",
    _MAILER,
    "send_mail",
    {"EMAIL_BACKEND": "mailer.backend.DbBackend", "INSTALLED_APPS": ["mailer"]},
    serial=True,
)
DJANGO_ALONE = Contender("Django's SMTP backend, no queue", _DJANGO, None, {}, serial=True)

ONE_WORKER_ON_REDIS, ONE_WORKER_ON_SQLITE = map(with_one_worker, [OURS_ON_REDIS, OURS_ON_SQLITE])
OURS_IN_WAL, POST_OFFICE_IN_WAL, MAILER_IN_WAL = map(in_wal, [OURS_ON_SQLITE, POST_OFFICE, MAILER])
