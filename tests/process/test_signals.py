"""SIGTERM and SIGINT to a real drain: what it finishes, puts back and prints, and its exit status."""

from __future__ import annotations

import json
import signal
import subprocess
import tempfile
import time
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, TransactionTestCase, tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import BACKEND, enqueue
from tests.kill.children import DRAIN, Site, quieten
from tests.smtp import Hold, ScriptedServer, always, stored_then
from tests.smtp.cases import ArrivalsMixin

#: Seconds that a drain may take to end on a slow machine.
SOON = 10
TERM, INT = signal.SIGTERM, signal.SIGINT


class SignalsMixin(ArrivalsMixin):
    """A drain that waits for a mail server that does not answer at some step."""

    engine: str

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")

    def queue_up(self, *subjects: str, created: datetime | None = None, **settings: Any) -> None:
        """Create a site with these messages in its queue."""
        self.site = Site(self.engine, MAIL_QUEUE_LOG_FILENAME=str(self.log), **settings)
        override = self.site.here()
        override.enable()
        self.addCleanup(override.disable)
        enqueue(*subjects, created=created)

    def drain(self, smtp: ScriptedServer, *arguments: str) -> subprocess.Popen[str]:
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return self.site.spawn(*DRAIN, *arguments, port=smtp.port, **pipes)

    def drain_until(self, step: str, connections: int = 1) -> tuple[subprocess.Popen[str], Hold]:
        """Start a drain, and wait until this many of its connections wait for an answer to the step."""
        hold = Hold()
        drain = self.drain(self.serve(always(step, stored_then(hold) if step == "dot" else hold)))
        hold.wait(connections)
        return drain, hold

    def assertEnds(self, drain: subprocess.Popen[str], status: int, output: str) -> None:
        began = time.monotonic()
        printed, errors = drain.communicate(timeout=60)
        self.assertEqual((drain.returncode, printed), (status, output), errors)
        self.assertLess(time.monotonic() - began, SOON)

    def assertDue(self, messages: int) -> None:
        """Assert that this many messages are due and that none is a suspect."""
        queue = self.site.queue()
        self.assertEqual(queue.counts()[:4], (messages, messages, 0, 0))
        with queue.consumer(60) as consumer:
            taken = consumer.exchange(wanted=messages).reservations
            self.assertEqual([one.deliveries for one in taken], [1] * messages)


def summary(sent: int, length: int) -> str:
    return f"{sent} message{'s' * (sent != 1)} sent and 0 messages discarded out of {length} messages.\n"


class FinishTests(SignalsMixin, TransactionTestCase):
    """The first signal."""

    engine = "sqlite"

    @tag("slow")
    def test_message_in_flight_is_finished(self) -> None:
        for number in (TERM, INT):
            with self.subTest(number):
                self.queue_up("a", "b", "c")
                drain, hold = self.drain_until("dot")
                drain.send_signal(number)
                hold.let_go()
                self.assertEnds(drain, 0, summary(1, 3))
                self.assertDue(2)
        self.assertEqual(self.arrived(), ["a", "a"])

    @tag("slow")
    def test_messages_in_flight_of_all_workers_are_finished(self) -> None:
        self.queue_up(*map(str, range(60)))
        drain, hold = self.drain_until("dot", connections=3)
        drain.send_signal(TERM)
        time.sleep(0.1)  # until the feed has taken back the messages that no worker has begun
        hold.let_go()
        self.assertEnds(drain, 0, summary(3, 60))
        self.assertEqual(len(self.arrived()), 3)
        self.assertDue(57)

    @tag("slow")
    def test_sleep_between_two_drains_ends(self) -> None:
        self.queue_up("a", "b")
        drain = self.drain(self.serve(), "--loop", "--interval=60")
        self.assertEqual(drain.stdout.readline(), summary(2, 2))
        drain.send_signal(TERM)
        self.assertEnds(drain, 0, "")

    @tag("slow")
    def test_sleep_between_two_messages_ends(self) -> None:
        self.queue_up("a", "b", "c", MAIL_QUEUE_RATE=0.01)
        drain, hold = self.drain_until("dot")
        hold.let_go()
        time.sleep(0.5)
        drain.send_signal(TERM)
        self.assertEnds(drain, 0, summary(1, 3))
        self.assertDue(2)

    @tag("slow")
    def test_server_that_never_answers_quit_does_not_matter(self) -> None:
        self.queue_up("a", "b")
        drain, _ = self.drain_until("QUIT")
        self.assertEnds(drain, 0, summary(2, 2))
        self.assertEqual((self.arrived(), self.site.queue().counts()), (["a", "b"], (0, 0, 0, 0, 0)))


class LetGoTests(SignalsMixin, TransactionTestCase):
    """The second signal."""

    engine = "sqlite"

    @tag("slow")
    def test_message_goes_back_at_once_wherever_the_server_hangs(self) -> None:
        cases = [
            ("banner", TERM, TERM),
            ("EHLO", INT, INT),
            ("MAIL", TERM, INT),
            ("DATA", INT, TERM),
            ("dot", TERM, TERM),
        ]
        for step, first, second in cases:
            with self.subTest(step):
                self.queue_up("a", "b")
                drain, _ = self.drain_until(step)
                drain.send_signal(first)
                time.sleep(0.1)
                drain.send_signal(second)
                self.assertEnds(drain, 128 + second, summary(0, 2))
                self.assertDue(2)

    @tag("slow")
    def test_messages_of_all_workers_go_back(self) -> None:
        self.queue_up(*map(str, range(60)))
        drain, _ = self.drain_until("dot", connections=3)
        drain.send_signal(TERM)
        time.sleep(0.1)
        drain.send_signal(TERM)
        self.assertEnds(drain, 143, summary(0, 60))
        self.assertDue(60)

    @tag("slow")
    def test_message_that_has_expired_goes_back(self) -> None:
        self.queue_up("a", "b", created=datetime.now() - timedelta(days=2))
        drain, _ = self.drain_until("dot")
        drain.send_signal(INT)
        time.sleep(0.1)
        drain.send_signal(INT)
        self.assertEnds(drain, 130, summary(0, 2))
        self.assertDue(2)
        self.assertFalse(self.log.exists())

    @tag("slow")
    def test_signals_at_any_line_wait_for_no_lock(self) -> None:
        arguments = ("-m", "tests.kill.interrupts", "signals", "none", "1", "3")
        tried = Site("dummy").spawn(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = tried.communicate(timeout=300)
        self.assertEqual(tried.returncode, 0, errors)
        found = json.loads(output)
        self.assertEqual(found["faults"], [])
        self.assertGreater(found["lines"], 100)


class SpoolTests(SignalsMixin, SimpleTestCase):
    """A site's own queue, which removes a message when it hands it out."""

    engine = "spool"

    def setUp(self) -> None:
        super().setUp()
        quieten(self)
        spool = tempfile.TemporaryDirectory()
        self.addCleanup(spool.cleanup)
        environment = mock.patch.dict("os.environ", TEST_SPOOL=spool.name)
        environment.start()
        self.addCleanup(environment.stop)

    @tag("slow")
    def test_first_signal_leaves_the_other_messages_in_the_queue(self) -> None:
        self.queue_up("a", "b", "c")
        drain, hold = self.drain_until("dot")
        self.assertEqual(len(self.site.queue()), 2)
        drain.send_signal(TERM)
        hold.let_go()
        self.assertEnds(drain, 0, summary(1, 3))
        self.assertDue(2)

    @tag("slow")
    def test_second_signal_puts_the_message_back(self) -> None:
        for number in (TERM, INT):
            with self.subTest(number):
                self.queue_up("a", "b", "c")
                drain, _ = self.drain_until("dot")
                drain.send_signal(number)
                time.sleep(0.1)
                drain.send_signal(number)
                self.assertEnds(drain, 128 + number, summary(0, 3))
                self.assertDue(3)

    def test_any_exception_puts_the_message_back(self) -> None:
        raised = (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RecursionError)
        for error in raised:
            for step in ("_send_queued_messages", "_send_now", "_wrap"):
                with self.subTest(error=error.__name__, step=step):
                    self.queue_up("a", "b")
                    self.interrupt(step, error)
                    self.assertDue(2)

    def interrupt(self, step: str, error: type[BaseException]) -> None:
        """Drain with this error at this step; no server listens, so that every delivery fails."""
        backend = QueuedEmailBackend(host="127.0.0.1", port=9)
        with mock.patch.object(QueuedEmailBackend, step, side_effect=error), suppress(error):
            backend.send_queued_messages()


class HandlersTests(SimpleTestCase):
    def test_handlers_are_restored_however_the_command_ends(self) -> None:
        before = [signal.getsignal(number) for number in (TERM, INT)]
        for error in (QueueUnavailable("down"), KeyboardInterrupt(), RuntimeError()):
            with (
                self.subTest(error),
                self.settings(EMAIL_BACKEND=BACKEND),
                mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=error),
                self.assertRaises((CommandError, type(error))),
            ):
                call_command("process_mail_queue")
            self.assertEqual([signal.getsignal(number) for number in (TERM, INT)], before)
