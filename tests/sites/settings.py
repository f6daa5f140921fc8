"""The settings of a site; the environment holds its kind, its directory and the ports of its mail servers."""

from __future__ import annotations

import os
from pathlib import Path

KIND = os.environ["SITE_KIND"]
DIRECTORY = Path(os.environ["SITE_DIRECTORY"])
PORTS = [int(port) for port in os.environ["SITE_PORTS"].split()]

SECRET_KEY = "only for the tests"
USE_TZ = True
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
INSTALLED_APPS = ["mailqueue_backend", "mailqueue_backend.queues.database"]
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": DIRECTORY / "site.sqlite3"}}
DEFAULT_FROM_EMAIL = SERVER_EMAIL = "site@example.com"
MAIL_QUEUE_LOG_FILENAME = DIRECTORY / "discards.log"

_SMTP = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
_RELAY = "mailqueue_backend.mail.relay.QueuedEmailBackend"
_FILES = "django.core.mail.backends.filebased.EmailBackend"

if KIND == "smtp":
    EMAIL_BACKEND = _SMTP
    EMAIL_HOST = "127.0.0.1"
    EMAIL_PORT = PORTS[0]
    EMAIL_TIMEOUT = 30
elif KIND == "relay":
    EMAIL_BACKEND = _RELAY
    EMAIL_FILE_PATH = str(DIRECTORY / "files")
    MAIL_QUEUE_DELIVERY_BACKEND = _FILES
else:
    MAILERS = {
        "default": {"BACKEND": _SMTP, "OPTIONS": {"host": "127.0.0.1", "port": PORTS[0], "timeout": 30}},
        "news": {"BACKEND": _SMTP, "OPTIONS": {"host": "127.0.0.1", "port": PORTS[1], "queue": "NEWS"}},
        "archive": {"BACKEND": _RELAY, "OPTIONS": {"deliver_using": "files"}},
        "files": {"BACKEND": _FILES, "OPTIONS": {"file_path": str(DIRECTORY / "files")}},
    }
