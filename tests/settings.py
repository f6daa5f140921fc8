"""Settings of the test suite. It uses every database server that answers; see tests/services.py."""

import atexit
import os
import shutil
import tempfile

from tests import services

SECRET_KEY = "only for the tests"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
ROOT_URLCONF = "tests.urls"
TEST_RUNNER = "tests.runner.SkipReportingRunner"

INSTALLED_APPS = [
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "mailqueue_backend",
    "mailqueue_backend.dashboard",
    "mailqueue_backend.queues.database",
    "tests.history.apps.DisconnectedHistoryConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "/static/"
EMAIL_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
EMAIL_HOST = "127.0.0.1"
# A child process connects to the mail server of the test that started it.
EMAIL_PORT = int(os.environ.get("TEST_EMAIL_PORT", "9"))

# SQLite is in a file because child processes use it; they inherit the directory's name.
if "TEST_DIRECTORY" not in os.environ:
    os.environ["TEST_DIRECTORY"] = tempfile.mkdtemp(prefix="mailqueue-tests-")
    atexit.register(shutil.rmtree, os.environ["TEST_DIRECTORY"], ignore_errors=True)
_directory = os.environ["TEST_DIRECTORY"]
# A worker of --parallel uses a copy, and passes its path to child processes (tests/parallel.py).
_sqlite = os.environ.get("TEST_SQLITE", os.path.join(_directory, "test.sqlite3"))
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _sqlite, "TEST": {"NAME": _sqlite}},
    **services.databases(),
}

MAIL_QUEUE_LOG_FILENAME = os.path.join(_directory, "discards.log")

# QUEUE_BACKEND stays unset; each test sets its own. queue-front's redisd reads this setting when it is imported.
QUEUE_REDIS_CONNECTION = services.REDIS
MAIL_QUEUE_REDIS_URL = f"redis://{services.REDIS}"
