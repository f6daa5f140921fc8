"""Drains against a real Postfix and its limits: no mail is lost, and no attempts are wasted."""

from __future__ import annotations

import os
import threading
import time
from types import SimpleNamespace
from unittest import skipIf

from django.core.mail import EmailMessage
from django.test import override_settings

from mailqueue_backend.delivery.limits import DrainOptions
from mailqueue_backend.delivery.report import Report
from tests.postfix import Postfix, reason_to_skip
from tests.smtp.cases import ScriptedTestCase

_REASON = reason_to_skip()


@skipIf(_REASON and not (os.environ.get("CI") and os.environ.get("TEST_POSTFIX")), _REASON)
class PostfixTestCase(ScriptedTestCase):
    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.postfix = Postfix()
        cls.postfix.__enter__()
        cls.addClassCleanup(cls.postfix.__exit__)

    def use(self, name: str) -> None:
        """Deliver to the port of this name, a key of PORTS."""
        self.port_name = name
        self.smtp = SimpleNamespace(port=self.postfix.ports[name])  # type: ignore[assignment]

    def store(self, *addresses: str) -> None:
        """Queue one message for each address."""
        self.backend().send_messages([EmailMessage("a", "b", "site@example.test", [each]) for each in addresses])

    def drain_with(self, workers: int) -> Report:
        backend = self.backend(timeout=60)
        backend.options = DrainOptions(workers=workers)
        return self.failing_drain(backend)

    def count_log_lines(self, words: str) -> int:
        return self.postfix.count(self.port_name, words)

    def assertLoggedOnce(self, words: str) -> None:
        self.assertEqual(len([line for line in self.lines if words in line]), 1, self.lines)


class RecipientTests(PostfixTestCase):
    def test_other_recipients_get_the_message(self) -> None:
        self.use("patient")
        good = [f"good{number}@example.test" for number in range(5)]
        dead = [f"dead{number}@example.test" for number in range(25)]
        self.backend().send_messages([EmailMessage("a", "b", "site@example.test", good + dead)])
        report = self.drain_with(1)
        self.assertEqual((report.sent, report.recipients_given_up, len(self.queue)), (1, 25, 0))
        self.assertEqual(len([line for line in self.discards() if "Recipient Refused" in line]), 25)

    def test_refused_messages_do_not_delay_the_next_one(self) -> None:
        self.use("plain")
        self.store(*(f"dead{number}@example.test" for number in range(60)), "good@example.test")
        began = time.monotonic()
        report = self.drain_with(1)
        self.assertEqual((report.sent, report.requeued), (1, 60))
        # After ten errors, Postfix delays each reply by a second.
        self.assertLess(time.monotonic() - began, 20)
        self.assertEqual(self.count_log_lines("]: connect from"), 16)


class RateTests(PostfixTestCase):
    def check_limit_of_30(self, name: str, *domains: str) -> None:
        self.use(name)
        self.store(*(f"good{number}@{domains[number % len(domains)]}" for number in range(100)))
        report = self.drain_with(1)
        self.assertEqual((report.sent, report.requeued, report.discarded), (30, 3, 0))
        self.assertEqual(sorted(meta.get("attempts", 0) for meta in self.left()), [0] * 67 + [1] * 3)
        self.assertEqual(len(self.lines), 1, self.lines)
        self.assertIn("70 messages wait", self.lines[0])

    def test_message_rate(self) -> None:
        self.check_limit_of_30("messages", "example.test")

    def test_recipient_rate(self) -> None:
        self.check_limit_of_30("recipients", "example.test", "example.org")


class AccountTests(PostfixTestCase):
    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_rejected_client(self) -> None:
        self.use("strangers")
        self.store(*(f"good{number}@{'ab'[number % 2]}.example" for number in range(50)))
        report = self.drain_with(1)
        self.assertEqual((report.sent, report.requeued, report.discarded), (0, 3, 0))
        self.assertLoggedOnce("554 5.7.1")

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_missing_login(self) -> None:
        self.use("login")
        self.store(*(f"good{number}@example.test" for number in range(50)))
        report = self.drain_with(8)
        self.assertEqual((report.sent, report.requeued, report.discarded, len(self.queue)), (0, 0, 0, 50))
        self.assertLoggedOnce("530 5.7.0")


class ConnectionTests(PostfixTestCase):
    def test_two_connections_at_a_time(self) -> None:
        for name in ("two connections", "two processes"):
            with self.subTest(name):
                self.use(name)
                self.store(*(f"good{number}@example.test" for number in range(300)))
                backend = self.backend(timeout=60)
                backend.options = DrainOptions(workers=8)
                self.assertEqual(self.drain(backend).sent, 300)

    def test_exceeded_connection_rate_loses_no_mail(self) -> None:
        self.use("five connections a minute")
        self.store(*(f"good{number}@example.test" for number in range(700)))
        report = self.drain_with(8)
        self.assertEqual((report.sent + len(self.queue), report.discarded), (700, 0))
        self.assertLoggedOnce("too many connections from 127.0.0.1")

    def test_three_slow_drains_open_one_connection_each(self) -> None:
        self.use("plain")
        self.store(*(f"good{number}@example.test" for number in range(9)))
        before = self.count_log_lines("]: connect from")
        backends = [self.backend(timeout=60) for _ in range(3)]
        with override_settings(MAIL_QUEUE_RATE=1):
            drains = [threading.Thread(target=backend.send_queued_messages) for backend in backends]
            for drain in drains:
                drain.start()
            for drain in drains:
                drain.join()
        self.assertEqual(sum(backend.report.sent for backend in backends), 9)
        self.assertEqual(self.count_log_lines("]: connect from") - before, 3)


class StoppedTests(PostfixTestCase):
    def test_during_a_drain(self) -> None:
        self.use("plain")
        self.store(*(f"good{number}@example.test" for number in range(2000)))
        stopper = threading.Timer(1, self.postfix.stop)
        stopper.start()
        self.addCleanup(stopper.join)
        report = self.drain_with(8)
        self.assertGreater(len(self.queue), 0)
        self.assertEqual((report.sent + len(self.queue), report.discarded), (2000, 0))
        self.assertLoggedOnce("messages wait")
