"""Opens queues in the tables of one database."""

from __future__ import annotations

from unittest import mock

from django.conf import settings
from django.db import connections
from django.test import override_settings

from mailqueue_backend.queues import database
from mailqueue_backend.queues.base import MessageQueue
from mailqueue_backend.queues.database import consumer as consumers
from mailqueue_backend.queues.database.models import QueuedMessage
from tests import services
from tests.engines.contract.base import OpensQueues

needs_postgresql = services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
needs_mariadb = services.needs("MariaDB", "mariadb" in settings.DATABASES)


class OnDatabase(OpensQueues):
    """Open queues on the database ``alias``; subclasses set it."""

    alias = ""

    def setUp(self) -> None:
        override = override_settings(MAIL_QUEUE_DATABASE=self.alias)
        override.enable()
        self.addCleanup(override.disable)
        # The contract expects that suspects are found at once.
        searching = mock.patch.object(consumers, "SEARCH_INTERVAL", 0)
        searching.start()
        self.addCleanup(searching.stop)
        super().setUp()

    def make_queue(self, name: str) -> MessageQueue:
        return database.Queue(name)

    @property
    def connection(self):
        return connections[self.alias]

    @property
    def rows(self):
        return QueuedMessage.objects.using(self.alias)


class SQLite(OnDatabase):
    alias = "default"
    databases = {"default"}


class PostgreSQL(OnDatabase):
    alias = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)


class MariaDB(OnDatabase):
    alias = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)
