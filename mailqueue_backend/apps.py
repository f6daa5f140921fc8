"""The Django app."""

from django.apps import AppConfig


class MailQueueConfig(AppConfig):
    """The app that registers the system checks."""

    name = "mailqueue_backend"
    verbose_name = "Mail queue"

    def ready(self) -> None:
        from . import checks  # noqa: F401 - registers them
