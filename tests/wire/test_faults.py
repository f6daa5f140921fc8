"""The fault matrix: whatever the server does wrong, and at whatever step, no message is lost, and none comes twice
but where nobody could know; nothing is said in the clear that is to be secret.

A cell queues three messages, a to two recipients, and drains twice: the fault is there at the first time that its
step is reached.
"""

from __future__ import annotations

import logging
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.envelope import Meta, loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests import smtp as server
from tests.cases import message
from tests.certificates import client_context, needs_openssl, server_context
from tests.smtp import FullServer, ScriptedServer, always, in_turn
from tests.smtp.cases import ScriptedTestCase

FAULTS: dict[str, Any] = {
    "4xx": "450 later",
    "5xx": "550 5.1.1 no",
    "421": "421 closing",
    # After these the connection is gone.
    "FIN": server.fin,
    "RST": server.rst,
    "hang": server.hang,
    "drip": server.drip,
    "torn": server.torn,
    "garbage": server.garbage,
    "long": server.long_line,
    "endless": server.endless,
}

#: The outcome of each fault at each step, in the words of OUTCOMES; "stored" is a fault after the message was stored.
PLAIN = """
             4xx      5xx      421      FIN      RST      hang     drip     torn     garbage  long     endless
banner       blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
EHLO         sent     sent     blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
MAIL         requeued requeued cut      cut      cut      cut      cut      cut      cut      cut      cut
first RCPT   requeued refused  cut      cut      cut      cut      cut      cut      cut      cut      cut
last RCPT    requeued refused  cut      cut      cut      cut      cut      cut      cut      cut      cut
all RCPT     requeued requeued cut      cut      cut      cut      cut      cut      cut      cut      cut
DATA         requeued requeued cut      cut      cut      cut      cut      cut      cut      cut      cut
body         requeued requeued cut      doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
dot          requeued requeued cut      doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
stored       -        -        -        doubled  -        doubled  -        -        -        -        -
RSET         cut      cut      cut      cut      cut      cut      cut      cut      cut      cut      cut
QUIT         sent     sent     sent     sent     sent     sent     sent     sent     sent     sent     sent
second MAIL  resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
"""
PIPELINED = """
             4xx      5xx      421      FIN      RST      hang     drip     torn     garbage  long     endless
MAIL         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
first RCPT   requeued refused  resent   resent   resent   resent   cut      resent   resent   resent   resent
last RCPT    requeued refused  resent   resent   resent   resent   cut      resent   resent   resent   resent
all RCPT     resent   requeued resent   resent   resent   resent   cut      resent   resent   resent   resent
DATA         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
body         resent   resent   resent   doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
dot          resent   resent   resent   doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
stored       -        -        -        doubled  -        doubled  -        -        -        -        -
RSET         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
QUIT         sent     sent     sent     sent     sent     sent     sent     sent     sent     sent     sent
second MAIL  resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
"""
SECURE = """
             4xx      5xx      421      FIN      RST      hang     drip     torn     garbage  long     endless
banner       blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
EHLO         blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
STARTTLS     blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
TLS          blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
AUTH         blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked  blocked
MAIL         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
first RCPT   requeued refused  resent   resent   resent   resent   cut      resent   resent   resent   resent
last RCPT    requeued refused  resent   resent   resent   resent   cut      resent   resent   resent   resent
all RCPT     resent   requeued resent   resent   resent   resent   cut      resent   resent   resent   resent
DATA         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
body         resent   resent   resent   doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
dot          resent   resent   resent   doubt    doubt    doubt    doubt    doubt    doubt    doubt    doubt
stored       -        -        -        doubled  -        doubled  -        -        -        -        -
RSET         resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
QUIT         sent     sent     sent     sent     sent     sent     sent     sent     sent     sent     sent
second MAIL  resent   resent   resent   resent   resent   resent   cut      resent   resent   resent   resent
"""


class Outcome(NamedTuple):
    """What a word in the tables stands for."""

    #: The first drain: (sent, requeued, attempts of the messages that are left), and its connections.
    first: tuple[int, int, list[int]]
    connections: int
    #: How many copies of message a each recipient has after the second drain.
    copies: int = 1
    #: The error that is kept says that message a may arrive twice.
    in_doubt: bool = False


OUTCOMES = {
    "blocked": Outcome((0, 0, [0, 0, 0]), 1),
    "sent": Outcome((3, 0, []), 1),
    "resent": Outcome((3, 0, []), 2),
    "refused": Outcome((3, 0, []), 1),  # one recipient, with a line in the discard log
    "requeued": Outcome((2, 1, [1]), 1),
    "cut": Outcome((2, 1, [1]), 2),  # requeued, and the connection is lost
    "doubt": Outcome((2, 1, [1]), 2, in_doubt=True),
    "doubled": Outcome((2, 1, [1]), 2, copies=2, in_doubt=True),
}
#: The recipient that is refused, by step, where the outcome is "refused".
REFUSED = {"first RCPT": "one@example.com", "last RCPT": "two@example.com"}

#: Seconds: of a step, and of a message (half the lease); a busy machine needs some of it for itself.
TIMEOUT, LEASE = 2, 16


class Cell(NamedTuple):
    """One field of the matrix."""

    mode: str
    stage: str
    fault: str
    outcome: str

    def __str__(self) -> str:
        return f"{self.mode}, {self.stage}, {self.fault}"

    @property
    def script(self) -> server.Script:
        fault = FAULTS[self.fault]
        if self.stage == "second MAIL":
            return in_turn(MAIL=[None, fault])
        if self.stage == "last RCPT":
            return in_turn(RCPT=[None, fault])
        if self.stage == "all RCPT":
            return in_turn(RCPT=[fault] * (2 if self.fault in ("4xx", "5xx") else 1))
        if self.stage == "stored":
            return in_turn(dot=[server.stored_then(fault)])
        if self.stage == "RSET":
            return in_turn(RSET=[fault], RCPT=["450 later", "450 later"])
        return in_turn(**{self.stage.split()[-1]: [fault]})


class Observed(NamedTuple):
    """What a cell did."""

    first: tuple[int, int, list[int]]
    connections: int
    #: Why a message was left after the first drain.
    errors: list[str]
    left: int
    #: Copies by subject and recipient, after the second drain.
    copies: Counter[str]
    message_ids: set[str]
    secrets: set[str]


_numbers = count()


def cells() -> list[Cell]:
    """Read the tables."""
    found = []
    for mode, table in (("plain", PLAIN), ("pipelined", PIPELINED), ("secure", SECURE)):
        header, *rows = table.strip().splitlines()
        faults = header.split()
        for row in rows:
            stage, *outcomes = row.rsplit(maxsplit=len(faults))
            found += [Cell(mode, stage, *pair) for pair in zip(faults, outcomes, strict=True) if pair[1] != "-"]
    return found


def backend_for(cell: Cell, port: int) -> QueuedEmailBackend:
    """Make a backend with a queue of its own."""
    backend = QueuedEmailBackend("127.0.0.1", port, timeout=TIMEOUT)
    backend.que = open_queue(f"faults {next(_numbers)}")
    if cell.mode == "secure":
        backend.use_tls, backend.username, backend.password = True, "user", "password"
        backend.ssl_context = client_context()
    return backend


def left(backend: QueuedEmailBackend) -> list[Meta]:
    """Return the Meta of each message that is left."""
    payloads = backend.que.read_many(9)
    backend.que.write_many(*payloads)
    return [loads(payload).meta for payload in payloads]


def run(cell: Cell) -> Observed:
    with ScriptedServer(
        cell.script,
        extensions=["PIPELINING", "AUTH PLAIN"] if cell.mode != "plain" else [],
        context=server_context() if cell.mode == "secure" else None,
    ) as smtp:
        backend = backend_for(cell, smtp.port)
        backend.send_messages([message(f"{cell} a", ["one@example.com", "two@example.com"])])
        backend.send_messages([message(f"{cell} {name}", ["one@example.com"]) for name in "bc"])
        backend.send_queued_messages()
        first = backend.report.sent, backend.report.requeued, [meta.attempts for meta in left(backend)]
        errors = [meta.last_error for meta in left(backend) if meta.last_error]
        connections = smtp.connections
        backend.send_queued_messages()
        finally_left = len(backend.que)
    clear = {verb for session in smtp.commands for verb in session} & {"auth", "mail", "rcpt", "data"}
    return Observed(
        first,
        connections,
        errors,
        finally_left,
        Counter(f"{stored.subject[-1]} to {recipient}" for stored in smtp.stored for recipient in stored.recipients),
        {str(stored.message["Message-ID"]) for stored in smtp.stored if stored.subject.endswith("a")},
        clear if cell.mode == "secure" else set(),
    )


@tag("slow")
@needs_openssl
class MatrixTests(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stack = ExitStack()
        self.addCleanup(self.stack.close)
        directory = self.stack.enter_context(tempfile.TemporaryDirectory())
        self.log = Path(directory, "discards.log")
        self.stack.enter_context(
            override_settings(QUEUE_BACKEND="dummy", MAIL_QUEUE_LEASE=LEASE, MAIL_QUEUE_LOG_FILENAME=str(self.log))
        )
        self.stack.enter_context(self.assertLogs("mailqueue_backend.delivery", "WARNING"))

    def test_matrix(self) -> None:
        with ThreadPoolExecutor(32) as pool:
            results = list(pool.map(run, cells()))
        for cell, observed in zip(cells(), results, strict=True):
            with self.subTest(cell=cell):
                self.check(cell, observed)

    def check(self, cell: Cell, observed: Observed) -> None:
        expected = OUTCOMES[cell.outcome]
        self.assertEqual((observed.first, observed.connections), (expected.first, expected.connections))
        self.assertEqual(observed.left, 0)
        copies = {"a to one@example.com": expected.copies, "a to two@example.com": expected.copies}
        copies |= {"b to one@example.com": 1, "c to one@example.com": 1}
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        discards = [line for line in lines if f"Subject: {cell} " in line]
        if cell.outcome == "refused":
            del copies[f"a to {REFUSED[cell.stage]}"]
            self.assertIn(f"To:{REFUSED[cell.stage]}. Error: 550 5.1.1 no", discards.pop())
        self.assertEqual(discards, [])
        self.assertEqual(observed.copies, copies)
        self.assertEqual(len(observed.message_ids), 1)
        self.assertEqual(observed.secrets, set())
        self.assertEqual(
            ["it may arrive twice" in error for error in observed.errors], [expected.in_doubt] * len(observed.errors)
        )
        self.assertEqual(len(observed.errors), observed.first[1] if cell.outcome != "blocked" else 0)


class ConnectTests(SimpleTestCase):
    """The first step of all: no connection comes about."""

    @override_settings(QUEUE_BACKEND="dummy")
    def drain(self, port: int, lease: float) -> logging.LogRecord:
        backend = QueuedEmailBackend("127.0.0.1", port, timeout=30)
        backend.que = open_queue(f"faults {next(_numbers)}")
        backend.send_messages([message("a"), message("b")])
        with (
            override_settings(MAIL_QUEUE_LEASE=lease),
            self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged,
        ):
            backend.send_queued_messages()
        self.assertEqual([meta.attempts for meta in left(backend)], [0, 0])
        (record,) = logged.records
        return record

    def test_refused(self) -> None:
        with ScriptedServer() as smtp:
            smtp.stop_listening()
            record = self.drain(smtp.port, 600)
        self.assertIn("connection refused. 2 messages wait", record.getMessage())
        self.assertIsNone(record.exc_info)

    def test_no_answer(self) -> None:
        began = time.monotonic()
        with FullServer() as full:
            self.drain(full.port, 1)
        self.assertLess(time.monotonic() - began, 5)


class ReplyTests(ScriptedTestCase):
    def test_refused_reset_costs_the_connection(self) -> None:
        self.serve(in_turn(RCPT=["450 later"], RSET=["450 no"]))
        self.enqueue("a", "b")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.smtp.connections), (1, 1, 2))

    def test_long_replies_do_not_add_up(self) -> None:
        self.serve(always("RCPT", f"250 {'x' * 4000}"))
        self.enqueue(*map(str, range(20)))
        self.assertEqual((self.drain().sent, self.smtp.connections), (20, 1))
