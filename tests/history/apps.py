"""The history for the test suite, where only its own tests write it."""

from mailqueue_backend.history.apps import HistoryConfig


class DisconnectedHistoryConfig(HistoryConfig):
    """The table, without the receivers."""

    def ready(self) -> None:
        pass
