"""Nothing is lost when a process dies: on each engine, real drains are killed or stopped while they deliver."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
from typing import Any
from unittest import skipUnless

from django.conf import settings
from django.core.mail import EmailMessage
from django.test import TransactionTestCase, tag

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import services
from tests.cases import enqueue, message
from tests.kill.children import DRAIN, Site
from tests.kill.harness import Plan, run
from tests.kill.messages import Deadly
from tests.smtp import Hold, always, delayed, stored_then
from tests.smtp.cases import ArrivalsMixin

OLD_RELEASE = os.environ.get("TEST_OLD_RELEASE", "")

needs_redis = services.needs("Redis", services.redis_answers())
needs_postgresql = services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
needs_mariadb = services.needs("MariaDB", "mariadb" in settings.DATABASES)


class WorkerCounting(EmailMessage):
    """Record the number of workers at each rendering; the first one is slow, so that other workers could start."""

    workers: list[int] = []

    def message(self, **kwargs: Any) -> Any:
        time.sleep(0 if self.workers else 0.2)
        self.workers.append(sum(thread.name.startswith("mailqueue-worker") for thread in threading.enumerate()))
        return super().message(**kwargs)


class KillContract(ArrivalsMixin):
    """The promises of each engine with leases; subclasses set the engine."""

    engine: str

    def make_site(self, lease: float = 2) -> Site:
        site = Site(self.engine, MAIL_QUEUE_LEASE=lease)
        override = site.here()
        override.enable()
        self.addCleanup(override.disable)
        return site

    # killed

    @tag("slow")
    def test_drains_that_are_killed_lose_nothing(self) -> None:
        for drains in (1, 3):
            self.check_nothing_is_lost(drains)

    def check_nothing_is_lost(self, drains: int, workers: int = 8) -> None:
        with self.subTest(drains=drains, workers=workers):
            ledger = run(Plan(self.engine, messages=600, kills=20, drains=drains, workers=workers, seed=drains))
            self.assertEqual(ledger.faults(), [], ledger)
            self.assertEqual(ledger.waiting, 0, ledger)
            self.assertGreater(ledger.kills, 10)

    def test_suspect_is_delivered_while_there_is_only_one_worker(self) -> None:
        site, smtp = self.make_site(), self.serve(delayed("dot", 0.01))
        messages = [WorkerCounting(str(number), to=["to@example.com"]) for number in range(60)]
        QueuedEmailBackend().send_messages(messages[:1])
        site.queue().consumer(0.05).exchange(wanted=1)
        time.sleep(0.1)
        QueuedEmailBackend().send_messages(messages[1:])
        WorkerCounting.workers.clear()
        QueuedEmailBackend(host="127.0.0.1", port=smtp.port).send_queued_messages()
        self.assertEqual(self.arrived()[0], "0")
        self.assertEqual(WorkerCounting.workers[0], 1)
        self.assertEqual((len(WorkerCounting.workers), max(WorkerCounting.workers)), (60, 3))

    @tag("slow")
    def test_drain_of_suspects_only_ends(self) -> None:
        site, smtp = self.make_site(), self.serve(delayed("dot", 0.01))
        enqueue(*map(str, range(45)))
        site.queue().consumer(0.05).exchange(wanted=45)
        site.wait_until_due()
        drain = site.spawn(*DRAIN, port=smtp.port, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.addCleanup(drain.kill)
        output, errors = drain.communicate(timeout=60)
        self.assertEqual((output[:17], errors), ("45 messages sent ", ""))
        self.assertEqual(sorted(self.arrived(), key=int), [*map(str, range(45))])

    # stopped

    @tag("slow")
    def test_drain_that_was_suspended_past_its_lease_reports_it(self) -> None:
        hold = Hold()
        site, smtp, other = self.make_site(lease=1), self.serve(always("dot", stored_then(hold))), self.serve()
        enqueue("a")
        stopped = site.spawn(*DRAIN, port=smtp.port, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        hold.wait()
        stopped.send_signal(signal.SIGSTOP)
        site.wait_until_due()
        site.spawn(*DRAIN, port=other.port, stdout=subprocess.DEVNULL).wait()
        hold.let_go()
        stopped.send_signal(signal.SIGCONT)
        self.assertIn("after its lease of 1 s had ended", stopped.communicate(timeout=30)[1])
        self.assertEqual((stopped.returncode, self.arrived()), (0, ["a", "a"]))
        self.assertEqual(len(set(self.arrived("Message-ID"))), 1)
        self.assertEqual(site.queue().counts()[:4], (0, 0, 0, 0))


class OneWorkerContract(KillContract):
    """The promises of a drain with one worker."""

    @tag("slow")
    def test_drains_with_one_worker_that_are_killed_lose_nothing(self) -> None:
        self.check_nothing_is_lost(drains=2, workers=1)

    @tag("slow")
    def test_deadly_message_costs_no_copy_with_one_worker(self) -> None:
        # The server is so slow that each message is settled before the next one begins.
        site, smtp = self.make_site(lease=1), self.serve(delayed("dot", 0.02))
        QueuedEmailBackend().send_messages([message("a"), Deadly("deadly", to=["to@example.com"]), message("b")])
        for _ in range(4):
            site.wait_until_due()
            site.spawn(*DRAIN, port=smtp.port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).wait()
        self.assertEqual((self.arrived(), site.queue("_DEAD").counts().due), (["a", "b"], 1))


@needs_redis
class RedisTests(OneWorkerContract, TransactionTestCase):
    engine = "redis"

    @tag("slow")
    def test_deadly_message_is_buried_and_the_others_are_delivered(self) -> None:
        site, smtp = self.make_site(), self.serve(delayed("dot", 0.04))
        fine = [message(f"message {number}") for number in range(80)]
        QueuedEmailBackend().send_messages([*fine[:20], Deadly("deadly", to=["to@example.com"]), *fine[20:]])
        statuses, errors = [], ""
        while site.queue().counts().waiting:
            drain = site.spawn(*DRAIN, port=smtp.port, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            errors = drain.communicate()[1]
            statuses.append(drain.returncode)
            site.wait_until_due()
        self.assertEqual(statuses, [9, 9, 9, 0])
        self.assertIn("it was reserved by 3 processes that died", errors)
        self.assertEqual(site.queue("_DEAD").counts().due, 1)
        self.assertEqual(set(self.arrived()), {one.subject for one in fine})

    @skipUnless(OLD_RELEASE, "TEST_OLD_RELEASE does not name a directory with 0.1.2")
    def test_harness_detects_that_the_old_release_loses_messages(self) -> None:
        ledger = run(Plan("redis", messages=200, kills=10, old=OLD_RELEASE))
        self.assertGreater(ledger.lost, 0, ledger)
        self.assertEqual((ledger.accepted, ledger.unexpected), (200, 0), ledger)


class SQLiteTests(OneWorkerContract, TransactionTestCase):
    engine = "sqlite"

    # independent of the engine

    @tag("slow")
    def test_no_other_drain_delivers_before_a_slow_delivery_is_cut_off(self) -> None:
        overlaps: list[bool] = []
        hold = Hold()
        smtp = self.serve(always("dot", stored_then(hold)))
        other = self.serve(lambda step, argument: overlaps.append(bool(smtp.open_sessions)))
        site = self.make_site(lease=2)
        enqueue("a")
        slow = site.spawn(*DRAIN, port=smtp.port, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        hold.wait()
        loop = site.spawn(*DRAIN, "--loop", "--interval=0.05", port=other.port, stdout=subprocess.DEVNULL)
        slow.wait()
        site.wait_until_empty()
        loop.terminate()
        self.assertEqual((loop.wait(), self.arrived()), (0, ["a", "a"]))
        self.assertEqual(set(overlaps), {False})


@needs_postgresql
class PostgreSQLTests(KillContract, TransactionTestCase):
    engine = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)


@needs_mariadb
class MariaDBTests(KillContract, TransactionTestCase):
    engine = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)
