"""Who is compared: the packages, the environment that each gets, and how each is set up by its own documentation."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

import needs
from environments import Environment

#: The top of this repository, where our own package is.
TOP = Path(__file__).resolve().parents[1]
DJANGO = "Django~=5.2.0"


class Contender(NamedTuple):
    """One row of the table."""

    name: str
    environment: Environment
    #: The management command that delivers; None: Django's backend, which has no queue.
    command: str | None
    settings: dict[str, Any]

    def settings_in(self, directory: Path) -> dict[str, Any]:
        """Give all its settings; its files are in that directory. Raises Missing."""
        found = {"SECRET_KEY": "a key for the benchmark", "USE_TZ": True, **self.settings}
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": str(directory / "queue.sqlite3")}
        found["DATABASES"] = {"default": database}
        if self.settings.get("QUEUE_BACKEND") == "redisd":
            # Nobody else's key, and a new one each time.
            found |= {"QUEUE_REDIS_CONNECTION": needs.redis(), "MAIL_QUEUE_NAME": f"mailqueue_benchmark_{uuid4().hex}"}
        return found


_OUR_BACKEND = {"EMAIL_BACKEND": "mailqueue_backend.mail.smtp.QueuedEmailBackend"}
_ON_REDIS = {**_OUR_BACKEND, "INSTALLED_APPS": ["mailqueue_backend"], "QUEUE_BACKEND": "redisd"}
_ON_SQLITE = {**_OUR_BACKEND, "INSTALLED_APPS": ["mailqueue_backend", "mailqueue_backend.queues.database"]}

_OURS = Environment("ours", [DJANGO, "queue-front", "redis[hiredis]"], variables={"PYTHONPATH": str(TOP)})
_OLD = Environment("0.1.2", [DJANGO, "queue-front", "redis[hiredis]"], bare=["django-mailqueue-backend==0.1.2"])
_POST_OFFICE = Environment("post_office", [DJANGO, "django-post_office"])
_MAILER = Environment("mailer", [DJANGO, "django-mailer"])
_DJANGO = Environment("django", [DJANGO])

OURS_ON_REDIS = Contender("ours, Redis", _OURS, "process_mail_queue", _ON_REDIS)
OURS_ON_SQLITE = Contender("ours, SQLite", _OURS, "process_mail_queue", _ON_SQLITE)
OLD_ON_REDIS = Contender("0.1.2, Redis", _OLD, "process_mail_queue", _ON_REDIS)
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
)
DJANGO_ALONE = Contender("Django's SMTP backend, no queue", _DJANGO, None, {})

CONTENDERS = [OURS_ON_SQLITE, OURS_ON_REDIS, OLD_ON_REDIS, POST_OFFICE, MAILER, DJANGO_ALONE]
