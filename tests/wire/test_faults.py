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

from mailqueue_backend.envelope import loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests import smtp as server
from tests.cases import message
from tests.certificates import client_context, needs_openssl, server_context
from tests.smtp import FullServer, ScriptedServer, in_turn

REPLIES: dict[str, Any] = {"4xx": "450 later", "5xx": "550 no", "421": "421 closing"}
#: After them the connection is gone.
BREAKS: dict[str, Any] = {
    "FIN": server.fin,
    "RST": server.rst,
    "hang": server.hang,
    "a byte a second": server.drip,
    "torn": server.torn,
    "garbage": server.garbage,
    "9,000 characters": server.long_line,
    "endless": server.endless,
}
LOST: dict[str, Any] = {
    "stored, FIN": server.stored_then(server.fin),
    "stored, hang": server.stored_then(server.hang),
}
FAULTS = REPLIES | BREAKS | LOST

GREETING = ["banner", "EHLO"]
SECURING = ["STARTTLS", "TLS", "AUTH"]
MESSAGE = ["MAIL", "first RCPT", "last RCPT", "all RCPT", "DATA", "body", "dot", "RSET", "QUIT", "second MAIL"]
MODES = {"plain": GREETING + MESSAGE, "pipelined": MESSAGE, "secure": GREETING + SECURING + MESSAGE}

#: Outcomes of the first drain: (sent, requeued, attempts of the messages that are left).
UNREACHABLE = (0, 0, [0, 0, 0])
ONE_FAILED = (2, 1, [1])
ALL_SENT = (3, 0, [])

#: Seconds: of a step, and of a message (half the lease); a busy machine needs some of it for itself.
TIMEOUT, LEASE = 2, 16


class Cell(NamedTuple):
    """One field of the matrix."""

    mode: str
    stage: str
    fault: str

    @property
    def script(self) -> server.Script:
        fault = FAULTS[self.fault]
        if self.stage == "second MAIL":
            return in_turn(MAIL=[None, fault])
        if self.stage == "last RCPT":
            return in_turn(RCPT=[None, fault])
        if self.stage == "all RCPT":
            return in_turn(RCPT=[fault] * (2 if self.fault in ("4xx", "5xx") else 1))
        if self.stage == "RSET":
            return in_turn(RSET=[fault], RCPT=["450 later", "450 later"])
        return in_turn(**{self.stage.split()[-1]: [fault]})

    @property
    def expected(self) -> tuple[tuple[int, int, list[int]], int]:
        """The outcome of the first drain, and how many connections it makes."""
        breaks, retried = self.fault in BREAKS, self.mode != "plain"
        closes = breaks or self.fault == "421"
        if self.stage == "QUIT":
            return ALL_SENT, 1
        if self.stage == "EHLO" and not closes and self.mode == "plain":
            return ALL_SENT, 1  # HELO does as well
        if self.stage in GREETING + SECURING:
            return UNREACHABLE, 1
        if self.stage == "RSET":
            return ONE_FAILED, 2
        if self.stage == "second MAIL" and closes:
            return (ONE_FAILED if self.out_of_time else ALL_SENT), 2
        if self.stage in ("first RCPT", "last RCPT") and self.fault == "5xx":
            return ALL_SENT, 1
        if self.stage in ("first RCPT", "last RCPT") and self.fault == "4xx":
            return ONE_FAILED, 1
        if breaks and retried and self.stage not in ("body", "dot"):
            return (ONE_FAILED if self.out_of_time else ALL_SENT), 2
        return ONE_FAILED, 2 if closes or self.fault in LOST else 1

    @property
    def out_of_time(self) -> bool:
        """No time-out ends it, but the deadline."""
        return self.fault == "a byte a second"

    @property
    def twice(self) -> bool:
        """Nobody can know whether the message has come."""
        return self.stage in ("body", "dot") and (self.fault in BREAKS or self.fault in LOST)


class Observed(NamedTuple):
    """What a cell did."""

    first: tuple[int, int, list[int]]
    connections: int
    left: int
    #: Copies by subject and recipient, after the second drain.
    copies: Counter[str]
    message_ids: set[str]
    secrets: set[str]
    seconds: float


_numbers = count()


def cells() -> list[Cell]:
    found = [
        Cell(mode, stage, fault) for mode, stages in MODES.items() for stage in stages for fault in REPLIES | BREAKS
    ]
    return found + [Cell(mode, "dot", fault) for mode in MODES for fault in LOST]


def backend_for(cell: Cell, port: int) -> QueuedEmailBackend:
    """Make a backend with a queue of its own."""
    backend = QueuedEmailBackend("127.0.0.1", port, timeout=TIMEOUT)
    backend.que = open_queue(f"faults {next(_numbers)}")
    if cell.mode == "secure":
        backend.use_tls, backend.username, backend.password = True, "user", "password"
        backend.ssl_context = client_context()
    return backend


def attempts(backend: QueuedEmailBackend) -> list[int]:
    """Tell how often each message that is left was tried."""
    payloads = backend.que.read_many(9)
    backend.que.write_many(*payloads)
    return [loads(payload).extra["mailqueue"].get("attempts", 0) for payload in payloads]


def run(cell: Cell) -> Observed:
    began = time.monotonic()
    with ScriptedServer(
        cell.script,
        extensions=["PIPELINING", "AUTH PLAIN"] if cell.mode != "plain" else [],
        context=server_context() if cell.mode == "secure" else None,
    ) as smtp:
        backend = backend_for(cell, smtp.port)
        backend.send_messages([message(f"{cell} a", ["one@example.com", "two@example.com"])])
        backend.send_messages([message(f"{cell} {name}", ["one@example.com"]) for name in "bc"])
        backend.send_queued_messages()
        first = backend.report.sent, backend.report.requeued, attempts(backend)
        connections = smtp.connections
        backend.send_queued_messages()
        left = len(backend.que)
    clear = {verb for session in smtp.commands for verb in session} & {"auth", "mail", "rcpt", "data"}
    return Observed(
        first,
        connections,
        left,
        Counter(f"{stored.subject[-1]} to {recipient}" for stored in smtp.stored for recipient in stored.recipients),
        {str(stored.message["Message-ID"]) for stored in smtp.stored if stored.subject.endswith("a")},
        clear if cell.mode == "secure" else set(),
        time.monotonic() - began,
    )


class Lines(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


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
        self.lines = Lines()
        logger = logging.getLogger("mailqueue_backend.delivery")
        logger.addHandler(self.lines)
        logger.propagate = False
        self.stack.callback(logger.removeHandler, self.lines)
        self.stack.callback(setattr, logger, "propagate", True)

    def test_matrix(self) -> None:
        with ThreadPoolExecutor(32) as pool:
            results = list(pool.map(run, cells()))
        for cell, observed in zip(cells(), results, strict=True):
            with self.subTest(cell=cell):
                self.check(cell, observed)

    def check(self, cell: Cell, observed: Observed) -> None:
        self.assertEqual((observed.first, observed.connections), cell.expected)
        self.assertEqual(observed.left, 0)
        copies = Counter({"a to one@example.com": 1, "a to two@example.com": 1})
        copies += Counter({"b to one@example.com": 1, "c to one@example.com": 1})
        if cell.fault in LOST:
            copies += Counter({"a to one@example.com": 1, "a to two@example.com": 1})
        lines = self.log.read_text(encoding="utf-8").splitlines() if self.log.exists() else []
        discards = [line for line in lines if str(cell) in line]
        if cell.fault == "5xx" and cell.stage in ("first RCPT", "last RCPT"):
            refused = "one" if cell.stage.startswith("first") else "two"
            copies.pop(f"a to {refused}@example.com")
            self.assertIn(f"To:{refused}@example.com. Error: 550 no", discards.pop())
        self.assertEqual(discards, [])
        self.assertEqual(observed.copies, copies)
        self.assertEqual(len(observed.message_ids), 1)
        self.assertEqual(observed.secrets, set())
        (message_id,) = observed.message_ids
        twice = [line for line in self.lines.lines if message_id in line and "it may arrive twice" in line]
        self.assertEqual(len(twice), cell.twice)


class ConnectTests(SimpleTestCase):
    """The first step of all: no connection comes about."""

    @override_settings(QUEUE_BACKEND="dummy")
    def drain(self, port: int, lease: float) -> logging.LogRecord:
        backend = QueuedEmailBackend("127.0.0.1", port, timeout=30)
        backend.que = open_queue(f"faults {next(_numbers)}")
        backend.send_messages([message("a"), message("b")])
        with override_settings(MAIL_QUEUE_LEASE=lease), self.assertLogs("mailqueue_backend.delivery") as logged:
            backend.send_queued_messages()
        self.assertEqual(attempts(backend), [0, 0])
        (record,) = logged.records
        return record

    def test_refused(self) -> None:
        with ScriptedServer() as smtp:
            smtp.stop_listening()
            record = self.drain(smtp.port, 600)
        self.assertIsInstance(record.exc_info and record.exc_info[1], ConnectionRefusedError)

    def test_no_answer(self) -> None:
        began = time.monotonic()
        with FullServer() as full:
            self.drain(full.port, 1)
        self.assertLess(time.monotonic() - began, 5)
