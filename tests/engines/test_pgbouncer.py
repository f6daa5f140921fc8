"""The database queue through pgbouncer, which gives each transaction any of its connections."""

from __future__ import annotations

import os
import time
from unittest import mock

from django.conf import settings
from django.db import connections
from django.test import TransactionTestCase, tag

from tests import services
from tests.engines.contract import QueueContract, TakersContract

from .database.base import PostgreSQL
from .feed.base import MANY, FeedMixin
from .pgbouncer import PROGRAM, PgBouncer


@tag("slow")
@services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
@services.needs("pgbouncer", bool(PROGRAM or os.environ.get("CI")))
class PgBouncerTestCase(TransactionTestCase):
    """Connect to PostgreSQL through pgbouncer, also in other threads and in child processes."""

    databases = {"postgresql"} & set(settings.DATABASES)

    @classmethod
    def setUpClass(cls) -> None:
        configured = connections["postgresql"].settings_dict
        bouncer = PgBouncer(configured["USER"], configured["PASSWORD"])
        cls.addClassCleanup(bouncer.close)
        cls.addClassCleanup(connections["postgresql"].close)
        for patch in (
            mock.patch.dict(configured, HOST="127.0.0.1", PORT=str(bouncer.port)),
            mock.patch.dict(os.environ, TEST_POSTGRESQL=f"127.0.0.1:{bouncer.port}"),
        ):
            patch.start()
            cls.addClassCleanup(patch.stop)
        connections["postgresql"].close()
        super().setUpClass()


class PgBouncerTests(PostgreSQL, QueueContract, TakersContract, PgBouncerTestCase):
    pass


class PgBouncerDrainTests(FeedMixin, PgBouncerTestCase):
    engine = "postgresql"

    def test_several_workers_deliver_each_message_once(self) -> None:
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 2))
        self.script = lambda step, argument: time.sleep(0.02) if step == "dot" else None
        self.enqueue(*MANY)
        report = self.drain(workers=8)
        self.assertGreater(self.smtp.connections, 2)
        self.assertEqual((report.sent, sorted(self.sent())), (60, MANY))
        self.assertEqual(self.queue.counts(), (0, 0, 0, 0, 0))
