"""Limits of a drain: how many messages, for how long, how fast, how often, how old."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from typing import Any
from unittest import mock

from django.test import TransactionTestCase, override_settings

from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import smtp
from tests.cases import BACKEND, MailTestCase, enqueue, process_mail_queue
from tests.engines.takers import WARNINGS
from tests.smtp import always
from tests.smtp.cases import ScriptedTestCase
from tests.smtp.inbox import SMTPServerMixin


class CommandTests(MailTestCase):
    def test_limit(self) -> None:
        enqueue(*map(str, range(25)))
        self.assertEqual(
            process_mail_queue("--limit", "10"), "10 messages sent and 0 messages discarded out of 25 messages.\n"
        )
        self.assertEqual(len(self.queue), 15)

    def test_expire(self) -> None:
        enqueue("old", created=datetime.now() - timedelta(minutes=2))
        enqueue("young")
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            output = process_mail_queue("--expire", "60")
        self.assertEqual(output, "1 message requeued.\n0 messages sent and 1 message discarded out of 2 messages.\n")
        self.assertIn("Subject: old", self.log_lines()[0])

    def test_numbers_that_make_no_sense_are_refused(self) -> None:
        for option, value in (
            ("--limit", "0"),
            ("--limit", "-1"),
            ("--limit", "ten"),
            ("--workers", "0"),
            ("--time-limit", "-1"),
            ("--time-limit", "nan"),
            ("--expire", "x"),
            ("--interval", "-1"),
        ):
            with self.subTest(option=option, value=value), self.assertRaises(Exception) as raised:
                process_mail_queue(f"{option}={value}")
            self.assertIn("is not a number", str(raised.exception))


class TimeTests(ScriptedTestCase):
    def test_time_limit(self) -> None:
        def take(session: smtp.Session) -> str:
            time.sleep(0.1)
            session.store()
            return smtp.say("250 stored")(session)

        self.serve(always("dot", take))
        self.enqueue(*map(str, range(20)))
        backend = self.backend()
        backend.options.time_limit = 0.5
        began = time.monotonic()
        sent = self.drain(backend).sent
        self.assertLess(time.monotonic() - began, 2)
        self.assertTrue(1 <= sent <= 6, sent)
        self.assertEqual(len(self.queue), 20 - sent)

    @override_settings(MAIL_QUEUE_LEASE=1)
    def test_server_that_hangs_does_not_stretch_it_beyond_a_deadline(self) -> None:
        self.serve(always("MAIL", smtp.hang))
        self.enqueue("a", "b", "c", "d")
        backend = self.backend(timeout=30)
        backend.options.time_limit = 0.2
        began = time.monotonic()
        self.assertEqual(self.failing_drain(backend).requeued, 1)
        self.assertLess(time.monotonic() - began, 2)

    @override_settings(MAIL_QUEUE_RATE=30)
    def test_rate_is_that_of_all_workers_together(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(60)))
        backend = self.backend()
        backend.options.time_limit = 1
        sent = self.drain(backend).sent
        self.assertGreater(self.smtp.connections, 1)
        # 30 in a second, and the one at its beginning; fewer on a machine that is busy.
        self.assertTrue(10 <= sent <= 31, sent)

    @override_settings(MAIL_QUEUE_RATE=2)
    def test_rate_holds_to_the_end_of_the_time_limit(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(10)))
        backend = self.backend()
        backend.options.time_limit = 1.2
        self.assertLessEqual(self.drain(backend).sent, 3)

    @override_settings(MAIL_QUEUE_RATE=1000)
    def test_rate_that_is_higher_than_can_be_reached_does_not_hinder(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(20)))
        self.assertEqual(self.drain().sent, 20)


@override_settings(EMAIL_BACKEND=BACKEND)
class LoopTests(SMTPServerMixin, TransactionTestCase):
    def start(self, *options: str) -> subprocess.Popen[str]:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_EMAIL_PORT": str(self.server.port)}
        command = [sys.executable, *WARNINGS, "-m", "django", "process_mail_queue", "--loop", *options]
        process = subprocess.Popen(command, env=environ, text=True, stdout=subprocess.PIPE)
        self.addCleanup(process.kill)
        return process

    def wait_for(self, messages: int) -> None:
        for _ in range(200):
            if len(self.inbox.received) >= messages:
                return
            time.sleep(0.05)
        self.fail(f"only {len(self.inbox.received)} of {messages} messages have come")

    def test_it_drains_again_and_again_until_it_is_asked_to_stop(self) -> None:
        for number in (signal.SIGTERM, signal.SIGINT):
            with self.subTest(signal=number):
                self.inbox.received.clear()
                process = self.start("--interval", "0.1")
                for name in "ab":
                    enqueue(name)
                    self.wait_for(len(self.inbox.received) + 1)
                process.send_signal(number)
                output, _ = process.communicate(timeout=10)
                self.assertEqual(process.returncode, 0)
                self.assertEqual(output.count("1 message sent"), 2)

    def test_long_interval_does_not_delay_the_end(self) -> None:
        process = self.start("--interval", "600")
        enqueue("a")
        assert process.stdout is not None
        process.stdout.readline()
        process.terminate()
        process.communicate(timeout=10)
        self.assertEqual(process.returncode, 0)


class LoopInThisProcessTests(MailTestCase):
    def test_queue_that_fails_does_not_end_the_loop(self) -> None:
        results: list[Any] = [QueueUnavailable("it restarts"), (1, 0, 1)]
        with (
            mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=results),
            mock.patch.object(StopRequest, "wait", side_effect=[False, True]),
        ):
            output = process_mail_queue("--loop")
        self.assertEqual([line[0] for line in output.splitlines()], ["1"])
