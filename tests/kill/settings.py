"""Settings of a child process: a site with the queued backend, plus the settings that its parent passes on.

0.1.2 runs with them, too.
"""

import json
import os

SECRET_KEY = "only for the tests"
USE_TZ = True
TIME_ZONE = "UTC"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

INSTALLED_APPS = ["mailqueue_backend"]
EMAIL_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_TIMEOUT = 30

globals().update(json.loads(os.environ["TEST_CHILD_SETTINGS"]))

if "mysql" in globals().get("DATABASES", {}).get("default", {}).get("ENGINE", ""):
    from tests.services import _use_pymysql

    _use_pymysql()
