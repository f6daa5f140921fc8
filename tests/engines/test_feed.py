"""The feed on each kind of queue: what a drain leaves behind, in which order, and how much it reserves."""

from __future__ import annotations

import time
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import SimpleTestCase, TransactionTestCase

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import services

from .feed import FeedContract
from .feed.base import MANY, FeedMixin
from .feed.unstorable import UnstorableContract


class DatabaseFeedTests(FeedContract, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisFeedTests(FeedContract, SimpleTestCase):
    engine = "redis"


class PlainFeedTests(FeedContract, SimpleTestCase):
    engine = "dummy"


@services.needs("MariaDB", "mariadb" in settings.DATABASES)
class LargeMessageTests(UnstorableContract, TransactionTestCase):
    engine = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)

    def test_message_on_which_the_server_hangs_up_is_left_to_its_lease(self) -> None:
        self.enqueue(*"abc")
        larger = b"a" * self.queue.largest_payload
        self.use(mock.patch.object(QueuedEmailBackend, "_wrap", return_value=larger))
        self.use(mock.patch.object(type(self.queue), "explain_size", return_value=""))
        self.check_b_is_left("(2006, ")

    def test_message_that_has_become_too_large_never_reaches_the_server(self) -> None:
        self.enqueue(*"abc")
        larger = b"a" * self.queue.largest_payload
        self.use(mock.patch.object(QueuedEmailBackend, "_wrap", return_value=larger))
        self.check_b_is_left("it takes ")


@services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
class ConnectionsTests(FeedMixin, TransactionTestCase):
    engine = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)

    def test_eight_workers_use_one_connection_to_the_database(self) -> None:
        made: list[Any] = []
        connections["postgresql"].close()
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 2))
        self.enqueue(*MANY)
        connections["postgresql"].close()
        note = lambda connection, **kwargs: made.append(connection)  # noqa: E731
        connection_created.connect(note)
        self.script = lambda step, argument: time.sleep(0.02) if step == "dot" else None
        self.addCleanup(connection_created.disconnect, note)
        report = self.drain(workers=8)
        self.assertEqual((report.sent, len(made)), (60, 1))
        self.assertGreater(self.smtp.connections, 2)
