"""Child processes of a test, which can be stopped and killed, and their sites."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from typing import Any
from unittest import TestCase
from uuid import uuid4

from django.db import connections
from django.test import override_settings

from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue
from tests import TOP, services
from tests.engines.takers import WARNINGS

#: The arguments of a drain.
DRAIN = ("-m", "django", "process_mail_queue")

ENGINES = ("redis", "sqlite", "postgresql", "mariadb")
#: QUEUE_BACKEND by engine; the other engines are databases.
_BACKENDS = {"redis": "redisd", "spool": "tests.kill.spool", "dummy": "dummy"}
_DATABASE_KEYS = ("ENGINE", "NAME", "USER", "PASSWORD", "HOST", "PORT")


def database(engine: str) -> str:
    """Return the alias of an engine's database in this process."""
    return engine if engine in ("postgresql", "mariadb") else "default"


def quieten(test: TestCase) -> None:
    """Keep the package's log messages off the console until the test ends."""
    logger, handler = logging.getLogger("mailqueue_backend"), logging.NullHandler()
    logger.addHandler(handler)
    test.addCleanup(logger.removeHandler, handler)


class Site:
    """A site with a separate queue: its settings in this process and in child processes."""

    def __init__(self, engine: str, **settings: Any) -> None:
        self.engine = engine
        self.settings = {"MAIL_QUEUE_NAME": f"{services.PREFIX}_{uuid4().hex[:8]}", **settings}
        if engine in _BACKENDS:
            self.settings["QUEUE_BACKEND"] = _BACKENDS[engine]

    def here(self) -> Any:
        """Return an override_settings() with the site's settings for this process."""
        return override_settings(MAIL_QUEUE_DATABASE=database(self.engine), **self.settings)

    def queue(self, suffix: str = "") -> MessageQueue:
        """Open the site's queue, or the one with this suffix; here() must be in effect."""
        return open_queue(self.settings["MAIL_QUEUE_NAME"] + suffix)

    def spawn(self, *arguments: str, package: str = "", port: int = 9, **options: Any) -> subprocess.Popen[str]:
        """Start Python with the site's settings and the port of a mail server.

        ``package`` is a directory with another release of this package.
        """
        environ = {
            **os.environ,
            # A killed process writes no coverage data, and measuring would slow it down.
            "COVERAGE_PROCESS_START": "",
            "COVERAGE_PROCESS_CONFIG": "",
            "PYTHONPATH": os.pathsep.join(filter(None, [package, str(TOP)])),
            "DJANGO_SETTINGS_MODULE": "tests.kill.settings",
            "TEST_CHILD_SETTINGS": json.dumps({**self.settings, **self._engine(), "EMAIL_PORT": port}),
        }
        warnings = ["-W", "ignore"] if package else WARNINGS
        return subprocess.Popen([sys.executable, *warnings, *arguments], env=environ, text=True, **options)

    def _engine(self) -> dict[str, Any]:
        if self.engine in _BACKENDS:
            return {"QUEUE_REDIS_CONNECTION": services.REDIS}
        settings = connections[database(self.engine)].settings_dict
        return {
            "INSTALLED_APPS": ["mailqueue_backend", "mailqueue_backend.queues.database"],
            "DATABASES": {"default": {key: str(settings[key]) for key in _DATABASE_KEYS}},
        }

    def wait_until_due(self) -> None:
        """Wait until no message is reserved, not even by a dead process."""
        while self.queue().counts().reserved:
            time.sleep(0.05)

    def wait_until_empty(self) -> None:
        """Wait until no message is waiting or reserved."""
        while any(self.queue().counts()[:4]):
            time.sleep(0.05)
