"""The app that holds the database queue's table."""

from django.apps import AppConfig


class DatabaseQueueConfig(AppConfig):
    """The app to install as ``"mailqueue_backend.queues.database"``."""

    name = "mailqueue_backend.queues.database"
    label = "mailqueue_database"
    verbose_name = "Mail queue"
    default_auto_field = "django.db.models.BigAutoField"
