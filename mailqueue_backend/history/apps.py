"""The app that holds the history's table and listens to the signals."""

from django.apps import AppConfig


class HistoryConfig(AppConfig):
    """The app to install as ``"mailqueue_backend.history"``."""

    name = "mailqueue_backend.history"
    label = "mailqueue_history"
    verbose_name = "Mail history"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from . import receivers

        receivers.connect()
