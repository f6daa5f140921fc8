"""Memory: a drain of many messages needs no more than a drain of few, and a big attachment needs little."""

from __future__ import annotations

from typing import Any
from unittest import skipUnless

from django.test import TransactionTestCase, tag

from tests import services
from tests.process.peak import MB, STATUS, measure
from tests.smtp import ScriptedServer, always, say

REDIS = "mailqueue_backend.queues.redis"
SIZE = 25 * MB
#: QUEUE_BACKEND -> name of the queue. The database belongs to the test; on the shared Redis, the name must be unique.
ENGINES = {"": "MAIL_QUEUE", **({REDIS: f"{services.PREFIX}_memory"} if services.redis_answers() else {})}


def accept_and_drop(session: Any) -> str:
    """Accept a message without storing it."""
    return say("250 stored")(session)


@tag("slow")
@skipUnless(STATUS.exists(), "this system does not report the peak memory of a process")
class MemoryTests(TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.smtp = ScriptedServer(always("dot", accept_and_drop), extensions=["PIPELINING"])
        self.smtp.__enter__()
        self.addCleanup(self.smtp.__exit__)

    def enqueue(self, amount: int, backend: str) -> int:
        return measure("enqueue", amount, ENGINES[backend], backend, self.smtp.port)

    def drain(self, amount: int, backend: str) -> int:
        return measure("drain", amount, ENGINES[backend], backend, self.smtp.port)

    def test_many_messages_take_no_more_than_few(self) -> None:
        # Prefer Redis: SQLite takes a minute for this many messages.
        backend = [*ENGINES][-1]
        peaks = []
        for amount in (200, 20_000):
            self.enqueue(amount, backend)
            peaks.append(self.drain(amount, backend))
        self.assertLess(peaks[1] - peaks[0], 5 * MB)

    def test_big_attachment_takes_four_times_its_size_at_most(self) -> None:
        for backend in ENGINES:
            with self.subTest(backend=backend):
                self.enqueue(1, backend)
                nothing = self.drain(1, backend)
                self.enqueue(-SIZE, backend)
                # hiredis keeps the last reply in memory.
                times = 5 if backend and services._importable("hiredis") else 4
                self.assertLess(self.drain(-SIZE, backend) - nothing, times * SIZE)
