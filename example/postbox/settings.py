"""Settings of the example site. The environment names the mail server."""

import os
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Directory of the database and the discard log; the demo sets a temporary one.
DIRECTORY = Path(os.environ.get("EXAMPLE_DIRECTORY") or HERE.parent)


def _is_on(name: str) -> bool:
    return os.environ.get(name, "").lower() in {"1", "true", "yes", "on"}


SECRET_KEY = "only for the example"
DEBUG = True
ALLOWED_HOSTS = ["localhost", "127.0.0.1"]
ROOT_URLCONF = "postbox.urls"
USE_TZ = True
TIME_ZONE = "UTC"
LANGUAGE_CODE = "en"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"

MIDDLEWARE = [
    "django.middleware.locale.LocaleMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
]
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [HERE / "templates"]}]
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": DIRECTORY / "example.sqlite3",
        # A failed request queues nothing: its mail is rolled back with its other changes.
        "ATOMIC_REQUESTS": True,
    }
}

# The three lines that put the queue in front of Django's mail:
INSTALLED_APPS = ["mailqueue_backend", "mailqueue_backend.queues.database"]
EMAIL_BACKEND = "mailqueue_backend.mail.smtp.QueuedEmailBackend"
MAIL_QUEUE_LOG_FILENAME = DIRECTORY / "discards.log"

MAIL_QUEUE_EXPIRE = float(os.environ.get("MAIL_QUEUE_EXPIRE") or 86400)

EMAIL_HOST = os.environ.get("EMAIL_HOST") or "localhost"
EMAIL_PORT = int(os.environ.get("EMAIL_PORT") or 25)
EMAIL_HOST_USER = os.environ.get("EMAIL_HOST_USER", "")
EMAIL_HOST_PASSWORD = os.environ.get("EMAIL_HOST_PASSWORD", "")
EMAIL_USE_TLS = _is_on("EMAIL_USE_TLS")
EMAIL_USE_SSL = _is_on("EMAIL_USE_SSL")
EMAIL_TIMEOUT = 30
DEFAULT_FROM_EMAIL = os.environ.get("DEFAULT_FROM_EMAIL") or "webmaster@example.com"
