"""Asking a drain to end: once, twice, by a signal, and what happens to the current message."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from datetime import datetime
from typing import Any
from unittest import mock

from django.test import SimpleTestCase

from mailqueue_backend.delivery.deadlines import Watchdog
from mailqueue_backend.delivery.feed import Feed
from mailqueue_backend.delivery.limits import StopRequest, stopping_on_signals
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.delivery.worker import Worker
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import smtp
from tests.smtp import Session, in_turn
from tests.smtp.cases import DELIVERY, ScriptedTestCase


class StopRequestTests(SimpleTestCase):
    def test_once(self) -> None:
        stop = StopRequest()
        self.assertFalse(stop.asked)
        stop.ask()
        self.assertTrue(stop)
        self.assertIsNone(stop.forced_by)

    def test_twice(self) -> None:
        stop = StopRequest()
        stop.ask(signal.SIGTERM)
        stop.ask(signal.SIGINT)
        self.assertEqual(stop.forced_by, signal.SIGINT)

    def test_sleep_ends_when_it_is_asked(self) -> None:
        stop = StopRequest()
        timer = threading.Timer(0.1, stop.ask)
        timer.start()
        began = time.monotonic()
        self.assertTrue(stop.wait(30))
        self.assertLess(time.monotonic() - began, 5)
        timer.join()

    def test_sleep_ends_by_itself(self) -> None:
        self.assertFalse(StopRequest().wait(0.01))
        self.assertFalse(StopRequest().wait(-1))


class SignalTests(SimpleTestCase):
    def test_signals_ask_and_handlers_are_restored(self) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)]
        stop = StopRequest()
        with stopping_on_signals(stop):
            os.kill(os.getpid(), signal.SIGTERM)
            self.assertTrue(stop.wait(5))
            os.kill(os.getpid(), signal.SIGINT)
            while stop.forced_by is None:
                time.sleep(0.01)
        self.assertEqual(stop.forced_by, signal.SIGINT)
        self.assertEqual([signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)], before)

    def test_another_thread_leaves_the_handlers_alone(self) -> None:
        seen: list[object] = []

        def work() -> None:
            with stopping_on_signals(StopRequest()):
                seen.append(signal.getsignal(signal.SIGTERM))

        before = signal.getsignal(signal.SIGTERM)
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        self.assertEqual(seen, [before])

    def test_signal_in_the_midst_of_looking_at_the_request_locks_nothing(self) -> None:
        stop = StopRequest()

        def ask(frame: Any, event: str, argument: Any) -> Any:
            sys.settrace(None)
            stop.ask()  # as a signal handler would, before the next line of whatever runs
            sys.settrace(ask)
            return ask

        def work() -> None:
            sys.settrace(ask)
            stop.wait(0.1)
            sys.settrace(None)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        thread.join(5)
        self.assertFalse(thread.is_alive())


class DrainTests(ScriptedTestCase):
    def backend_asked_at(self, times: int) -> QueuedEmailBackend:
        """Serve so that the first message's final dot makes the drain be asked to end so many times."""

        def ask(session: Session) -> str:
            for _ in range(times):
                backend.options.stop.ask()
            if times > 1:
                return smtp.hang(session)
            session.store()
            return smtp.say("250 stored")(session)

        self.serve(in_turn(dot=[ask]))
        backend = self.backend(timeout=60)
        return backend

    def test_current_message_is_finished(self) -> None:
        backend = self.backend_asked_at(1)
        self.enqueue("a", "b", "c")
        report = self.drain(backend)
        self.assertEqual((report.sent, len(self.queue), self.smtp.copies), (1, 2, {"a": 1}))

    def test_current_message_is_requeued_unchanged(self) -> None:
        backend = self.backend_asked_at(2)
        self.enqueue("a", "b", created=datetime(2020, 1, 1))
        began = time.monotonic()
        report = self.drain(backend)
        self.assertLess(time.monotonic() - began, 5)
        # It is expired, and would be discarded if it had failed.
        self.assertEqual((report.sent, report.requeued, report.discarded, len(self.queue)), (0, 0, 0, 2))
        self.assertEqual(self.discards(), [])
        self.assertEqual({kept.get("attempts", 0) for kept in self.left()}, {0})

    def test_all_workers_let_go(self) -> None:
        def ask(session: Session) -> str:
            while self.smtp.said("DATA") < 3:
                time.sleep(0.01)
            backend.options.stop.ask()
            backend.options.stop.ask()
            return smtp.hang(session)

        self.serve(in_turn(dot=[ask, smtp.hang, smtp.hang]))
        backend = self.backend(timeout=60)
        self.enqueue(*map(str, range(60)))
        began = time.monotonic()
        report = self.drain(backend)
        self.assertLess(time.monotonic() - began, 10)
        self.assertEqual((report.sent, len(self.queue)), (0, 60))

    def test_no_thread_is_left(self) -> None:
        before = set(threading.enumerate())
        self.serve()
        self.enqueue(*map(str, range(60)))
        self.drain(self.backend())
        left = [thread for thread in set(threading.enumerate()) - before if thread.name.startswith("mailqueue")]
        for thread in left:  # the watchdog may need a moment
            thread.join(5)
        self.assertEqual([thread for thread in left if thread.is_alive()], [])


class Interrupted(QueuedEmailBackend):
    """Is interrupted at its second message, before or after it is delivered."""

    after_delivery = False

    def _send_queued_messages(self, email_message: Any, *args: Any) -> Any:
        if email_message.subject == "b" and not self.after_delivery:
            raise KeyboardInterrupt
        outcome = super()._send_queued_messages(email_message, *args)
        if email_message.subject == "b":
            raise KeyboardInterrupt
        return outcome


class InterruptedAfterwards(Interrupted):
    after_delivery = True


class InterruptTests(ScriptedTestCase):
    def interrupted_drain(self, kind: type[QueuedEmailBackend], to: Sequence[str] = ("to@example.com",)) -> Report:
        """Drain three messages; return what the report says afterwards."""
        backend = self.backend(kind)
        self.enqueue("a", "b", "c", to=to)
        with self.assertRaises(KeyboardInterrupt):
            self.drain(backend)
        return backend.report

    def test_message_that_was_not_delivered_goes_back(self) -> None:
        self.serve()
        report = self.interrupted_drain(Interrupted)
        self.assertEqual((report.sent, len(self.queue), self.smtp.copies), (1, 2, {"a": 1}))
        self.drain()
        self.assertEqual(self.smtp.copies, {"a": 1, "b": 1, "c": 1})

    def test_message_that_was_delivered_is_settled(self) -> None:
        self.serve()
        report = self.interrupted_drain(InterruptedAfterwards)
        self.assertEqual((report.sent, len(self.queue), self.smtp.copies), (2, 1, {"a": 1, "b": 1}))
        self.drain()
        self.assertEqual(self.smtp.copies, {"a": 1, "b": 1, "c": 1})

    def test_recipients_who_have_the_message_do_not_get_it_again(self) -> None:
        self.serve(in_turn(RCPT=[None, None, None, "450 later"]))
        with self.assertLogs(DELIVERY, "WARNING"):
            self.interrupted_drain(InterruptedAfterwards, ["one@example.com", "two@example.com"])
        self.assertEqual([kept.get("remaining") for kept in self.left()], [None, ["two@example.com"]])
        self.drain()
        self.assertEqual(self.smtp.deliveries, {"one@example.com": 3, "two@example.com": 3})

    def test_another_interrupt_while_the_drain_ends_loses_nothing(self) -> None:
        for owner, step in ((Worker, "close"), (Watchdog, "stop"), (Feed, "close")):
            with self.subTest(step=f"{owner.__name__}.{step}"), _interrupted_once(owner, step):
                self.serve()
                self.interrupted_drain(Interrupted)
                self.assertEqual((len(self.queue), self.smtp.copies), (2, {"a": 1}))
                self.queue.read_many(2)


def _interrupted_once(owner: type, name: str) -> Any:
    """Interrupt a method at its first line, the first time that it is called."""
    method, interrupts = getattr(owner, name), iter([KeyboardInterrupt])

    def interrupted(*args: Any) -> Any:
        for interrupt in interrupts:
            raise interrupt
        return method(*args)

    return mock.patch.object(owner, name, interrupted)
