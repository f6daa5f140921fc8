"""The app that adds the queues to the admin."""

from django.apps import AppConfig


class DashboardConfig(AppConfig):
    """The app to install as ``"mailqueue_backend.dashboard"``."""

    name = "mailqueue_backend.dashboard"
    label = "mailqueue_dashboard"
    verbose_name = "Mail queue"
    default_auto_field = "django.db.models.BigAutoField"
