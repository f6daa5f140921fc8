"""The app that holds the database queue's table."""

from django.apps import AppConfig


class DatabaseQueueConfig(AppConfig):
    """Installed by ``"mailqueue_backend.queues.database"`` in INSTALLED_APPS."""

    name = "mailqueue_backend.queues.database"
    label = "mailqueue_database"
    verbose_name = "Mail queue"
    default_auto_field = "django.db.models.BigAutoField"
