"""A drain dies at a given point: the state that it leaves, and what the next drain delivers."""

from __future__ import annotations

import pickle
import subprocess
import tempfile
from collections.abc import Collection
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from django.conf import settings
from django.core.mail import EmailMessage
from django.test import TransactionTestCase, tag

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import services
from tests.cases import enqueue
from tests.kill.children import Site, quieten
from tests.kill.crashes import STATUS
from tests.smtp import ScriptedServer, Stored, always
from tests.smtp.cases import ArrivalsMixin

#: Seconds: the lease for one process, and for many concurrent ones, all of which must reach their points within it.
LEASE, LONG_LEASE = 2, 6

#: Point -> copies that have arrived after the drain has died there, and after the next drain.
DELIVERY = {
    "after reserve": (0, 1),
    "before banner": (0, 1),
    "after banner": (0, 1),
    "before EHLO": (0, 1),
    "after EHLO": (0, 1),
    "before MAIL": (0, 1),
    "after MAIL": (0, 1),
    "before RCPT": (0, 1),
    "after RCPT": (0, 1),
    "before DATA": (0, 1),
    "after DATA": (0, 1),
    # The server has accepted the message, but the queue has not recorded it: this causes the extra copy.
    "before dot": (1, 2),
    "after dot": (1, 2),
    "before ack": (1, 2),
    "after ack": (1, 1),
    "before QUIT": (1, 1),
    "after QUIT": (1, 1),
}
#: Point of a drain that reserves eight of ten messages at once -> after it has died there: copies that have arrived,
#: messages in the queue, and their deliveries; and copies that have arrived after the next drain.
GROUP = {
    "before the commit of a reserve": (0, 10, 0, 10),
    "after the commit of a reserve": (0, 10, 8, 10),
    "after reserve": (0, 10, 8, 10),
    # The server has accepted all eight, and the queue has recorded none.
    "before ack": (8, 10, 8, 18),
    "before the commit of an ack": (8, 10, 8, 18),
    "after the commit of an ack": (8, 2, 2, 10),
    "after ack": (8, 2, 2, 10),
}
#: Point -> whether a temporarily refused message is due at once. The next drain delivers it once.
REQUEUE = {
    "before release": False,
    "before the insert of a release": False,
    "before the commit of a release": False,
    "after the commit of a release": True,
    "after release": True,
}
#: Points that do not exist on Redis, where an exchange is a single call of a script.
DATABASES_ONLY = frozenset(
    {point for point in (*GROUP, *REQUEUE) if "the commit" in point} | {"before the insert of a release"}
)
#: Point -> log lines about a discarded message after the drain has died there, and after the next drain.
DISCARD = {
    "before the line": (0, 1),
    "before rotation": (0, 1),
    "before the last step of rotation": (0, 1),
    "after rotation": (0, 1),
    # The line is written before the message leaves the queue: two lines are better than none.
    "after the line": (1, 2),
    "before ack": (1, 2),
    "after ack": (1, 1),
}
#: The contents of the log and of the older, rotated logs.
OLDER_LINES = [f"{name} line {'x' * 300}" for name in ("first", "second", "third")]


class Case:
    """A site whose messages have the point as subject, and a drain that dies there."""

    def __init__(self, engine: str, point: str, directory: str, lease: float) -> None:
        self.point = point
        self.log = Path(directory, f"{point}.log")
        for number, line in enumerate(OLDER_LINES):
            Path(f"{self.log}.{number}" if number else self.log).write_text(f"{line}\n")
        log = {"FILENAME": str(self.log), "FILE_MAXBYTES": 200, "FILE_BACKUP": 5}
        self.site = Site(engine, MAIL_QUEUE_LEASE=lease, **{f"MAIL_QUEUE_LOG_{key}": log[key] for key in log})

    def start(self, smtp: ScriptedServer) -> None:
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = self.site.spawn("-m", "tests.kill.crashes", self.point, port=smtp.port, **quiet)

    def drain(self, smtp: ScriptedServer) -> None:
        """Drain in this process, once the leases of the dead one have ended."""
        with self.site.here():
            self.site.wait_until_due()
            QueuedEmailBackend(host="127.0.0.1", port=smtp.port).send_queued_messages()

    def counts(self) -> tuple[int, ...]:
        with self.site.here():
            return self.site.queue().counts()

    def deliveries(self) -> list[int]:
        """Wait until all leases have ended; return the count of deliveries of each message in the queue."""
        with self.site.here():
            self.site.wait_until_due()
            return [entry.deliveries for entry in self.site.queue().browse("due", 100)]

    def lines(self) -> list[str]:
        """Return the lines of the log and of the rotated logs."""
        return [line for file in self.log.parent.glob(f"{self.log.name}*") for line in file.read_text().splitlines()]


class ExchangeContract(ArrivalsMixin):
    """The promise that each engine carries out an exchange entirely or not at all; subclasses set the engine."""

    engine: str
    #: Points that the engine does not have.
    lacks = frozenset[str]()

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = directory.name
        self.smtp = self.serve()
        quieten(self)

    def crash(
        self,
        points: Collection[str],
        smtp: ScriptedServer,
        payload: bytes | None = None,
        messages: int = 1,
        **kwargs: Any,
    ) -> list[Case]:
        """Run a drain for each point concurrently, and wait until each has died there."""
        lease = LEASE if len(points) == 1 else LONG_LEASE
        cases = [Case(self.engine, point, self.directory, lease) for point in points]
        for case in cases:
            with case.site.here():
                case.site.queue().write(payload) if payload else enqueue(*[case.point] * messages, **kwargs)
            case.start(smtp)
        statuses = {case.point: case.process.wait() for case in cases}
        self.assertEqual(statuses, dict.fromkeys(statuses, STATUS))
        return cases

    def copies(self, case: Case) -> list[Stored]:
        return [arrival for arrival in self.arrivals if arrival.subject == case.point]

    def assertSameMessage(self, copies: list[Stored]) -> None:
        self.assertEqual(len({(copy.message["Message-ID"], copy.message["Date"]) for copy in copies}), 1)
        self.assertTrue(copies[0].message["Message-ID"])

    @tag("slow")
    def test_message_that_is_requeued(self) -> None:
        busy = self.serve(always("RCPT", "450 later"))
        for point in REQUEUE.keys() - self.lacks:
            with self.subTest(point):
                (case,) = self.crash([point], busy)
                self.assertEqual(case.counts()[:2], (1, 1) if REQUEUE[point] else (0, 0))
                case.drain(self.smtp)
                self.assertEqual((len(self.copies(case)), case.counts()), (1, (0, 0, 0, 0, 0)))

    @tag("slow")
    def test_group_of_messages(self) -> None:
        for case in self.crash(GROUP.keys() - self.lacks, self.smtp, messages=10):
            with self.subTest(case.point):
                before, left = len(self.copies(case)), case.deliveries()
                case.drain(self.smtp)
                self.assertEqual((before, len(left), sum(left), len(self.copies(case))), GROUP[case.point])
                self.assertEqual(case.counts(), (0, 0, 0, 0, 0))
                self.assertEqual(len({copy.message["Message-ID"] for copy in self.copies(case)}), 10)


@services.needs("Redis", services.redis_answers())
class RedisTests(ExchangeContract, TransactionTestCase):
    engine = "redis"
    lacks = DATABASES_ONLY

    @tag("slow")
    def test_message_that_is_delivered(self) -> None:
        for case in self.crash(DELIVERY, self.smtp):
            with self.subTest(case.point):
                before = len(self.copies(case))
                case.drain(self.smtp)
                self.assertEqual((before, len(self.copies(case))), DELIVERY[case.point])
                self.assertEqual(case.counts(), (0, 0, 0, 0, 0))
                self.assertSameMessage(self.copies(case))

    @tag("slow")
    def test_payload_of_an_old_release(self) -> None:
        email = EmailMessage("before dot", "Body", "from@example.com", ["to@example.com"])
        payload = pickle.dumps({"email": email, "created": datetime.now() - timedelta(seconds=10)})
        (case,) = self.crash(["before dot"], self.smtp, payload)
        case.drain(self.smtp)
        self.assertEqual(len(self.copies(case)), 2)
        self.assertSameMessage(self.copies(case))


class SQLiteTests(ExchangeContract, TransactionTestCase):
    engine = "sqlite"

    @tag("slow")
    def test_message_that_is_given_up(self) -> None:
        refusing = self.serve(always("RCPT", "550 no"))
        for case in self.crash(DISCARD, refusing, created=datetime.now() - timedelta(days=2)):
            with self.subTest(case.point):
                before = sum(case.point in line for line in case.lines())
                case.drain(refusing)
                self.assertEqual((before, sum(case.point in line for line in case.lines())), DISCARD[case.point])
                self.assertLess(set(OLDER_LINES), set(case.lines()))
                self.assertEqual(case.counts(), (0, 0, 0, 0, 0))


@services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
class PostgreSQLTests(ExchangeContract, TransactionTestCase):
    engine = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)


@services.needs("MariaDB", "mariadb" in settings.DATABASES)
class MariaDBTests(ExchangeContract, TransactionTestCase):
    engine = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)
