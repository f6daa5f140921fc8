"""Acting on messages while two drains deliver: nothing is lost, nothing is sent twice, nothing sent and discarded."""

from __future__ import annotations

import re
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

from django.test import SimpleTestCase, TransactionTestCase, tag

from mailqueue_backend.inspection.acting import Discard, Retry, Revive, act, act_on_all
from mailqueue_backend.inspection.listing import list_messages
from mailqueue_backend.queues.base import Settlement
from tests import services
from tests.cases import enqueue
from tests.kill.children import DRAIN, Site, quieten
from tests.smtp import delayed
from tests.smtp.cases import ArrivalsMixin

#: All messages, those that are deferred at first, and those that are dead at first.
MESSAGES, DEFERRED, DEAD = 300, 100, 60
#: Seconds of a delay that the test does not outlast; no longer one, of which a drain would warn.
LONG = 50


if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object


class BesideDrainsMixin(ArrivalsMixin, Base):
    """A queue with due, deferred and dead messages, and two drains."""

    engine: str

    def setUp(self) -> None:
        super().setUp()
        quieten(self)
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")
        self.site = Site(self.engine, MAIL_QUEUE_LOG_FILENAME=str(self.log))
        override = self.site.here()
        override.enable()
        self.addCleanup(override.disable)
        self.queue = self.site.queue()
        enqueue(*[str(number) for number in range(MESSAGES)])
        self.settle(DEFERRED, "release", LONG)
        self.settle(DEAD, "bury")

    def settle(self, number: int, how: str, delay: float = 0) -> None:
        with self.queue.consumer(LONG) as consumer:
            reservations = consumer.exchange(wanted=number).reservations
            consumer.exchange([Settlement(each, how, delay=delay) for each in reservations])

    def start_drains(self) -> None:
        smtp = self.serve(delayed("dot", 0.005))
        for _ in range(2):
            drain = self.site.spawn(
                *DRAIN, "--loop", "--interval", "0.05", "-v0", port=smtp.port, stderr=subprocess.PIPE
            )
            self.addCleanup(self.end, drain)
        while not self.arrivals:
            time.sleep(0.01)

    def end(self, drain: subprocess.Popen[str]) -> None:
        drain.terminate()
        _, errors = drain.communicate(timeout=60)
        self.assertEqual((drain.returncode, errors), (0, ""))

    @tag("slow")
    def test_nothing_is_lost_or_doubled(self) -> None:
        self.start_drains()
        chosen = [message for message in list_messages(self.queue, ["due"]) if int(message.subject) % 3 == 0]
        # From the tail to the head, where the drains take.
        discarded = [message.subject for message, problem in act(Discard(), chosen[::-1]) if not problem]
        results = [*act_on_all(Retry(), self.queue), *act_on_all(Revive(), self.queue)]
        self.assertEqual([problem for _, problem in results if problem], [])
        self.site.wait_until_empty()
        logged = re.findall(r"Subject: (\d+)", self.log.read_text())
        self.assertEqual((len(results), self.queue.counts().dead), (DEFERRED + DEAD, 0))
        self.assertEqual(logged, discarded)
        self.assertTrue(discarded)
        self.assertEqual(Counter(self.arrived() + logged), Counter(map(str, range(MESSAGES))))


class DatabaseBesideDrainsTests(BesideDrainsMixin, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisBesideDrainsTests(BesideDrainsMixin, SimpleTestCase):
    engine = "redis"
