"""Settings of the test suite: every database server that answers is used, see tests/services.py."""

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

INSTALLED_APPS = ["mailqueue_backend", "mailqueue_backend.queues.database"]
EMAIL_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
EMAIL_HOST = "127.0.0.1"
# For child processes: the mail server of the test that started them.
EMAIL_PORT = int(os.environ.get("TEST_EMAIL_PORT", "9"))

# A file, since several processes look into it; a child process inherits the name.
if "TEST_DIRECTORY" not in os.environ:
    os.environ["TEST_DIRECTORY"] = tempfile.mkdtemp(prefix="mailqueue-tests-")
    atexit.register(shutil.rmtree, os.environ["TEST_DIRECTORY"], ignore_errors=True)
_directory = os.environ["TEST_DIRECTORY"]
# A worker of --parallel has a copy, and names it for its child processes (tests/parallel.py).
_sqlite = os.environ.get("TEST_SQLITE", os.path.join(_directory, "test.sqlite3"))
DATABASES = {
    "default": {"ENGINE": "django.db.backends.sqlite3", "NAME": _sqlite, "TEST": {"NAME": _sqlite}},
    **services.databases(),
}

MAIL_QUEUE_LOG_FILENAME = os.path.join(_directory, "discards.log")

# QUEUE_BACKEND stays unset: each test says which one it is about. queue-front's redisd reads this when imported.
QUEUE_REDIS_CONNECTION = services.REDIS
MAIL_QUEUE_REDIS_URL = f"redis://{services.REDIS}"
