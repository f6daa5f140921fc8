"""What a drain says of each message: a line in the log at INFO, a signal, and a call of DrainOptions.on_event."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.dispatch import Signal
from django.test import override_settings
from django.utils.log import AdminEmailHandler

from mailqueue_backend import signals
from mailqueue_backend.delivery.events import Event, send_signal
from mailqueue_backend.delivery.limits import DrainOptions
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.database.consumer import Consumer
from tests.cases import MailTestCase, drain, enqueue
from tests.smtp import Script, always, by_recipient, good, in_turn
from tests.smtp.cases import DELIVERY, ScriptedTestCase
from tests.wire.test_admin_handler import ADMINS, on_the_root_logger

ALL = ("message_queued", "message_sent", "message_requeued", "message_discarded", "message_buried")


@contextmanager
def received(*names: str) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Collect the signals of these names, as (name, arguments)."""
    calls: list[tuple[str, dict[str, Any]]] = []
    receivers = []
    for name in names or ALL:

        def receiver(signal: Signal, name: str = name, **kwargs: Any) -> None:
            calls.append((name, kwargs))

        receivers.append((getattr(signals, name), receiver))
        getattr(signals, name).connect(receiver)
    try:
        yield calls
    finally:
        for signal, receiver in receivers:
            signal.disconnect(receiver)


class EventTestCase(ScriptedTestCase):
    def deliver(
        self, script: Script = good, to: tuple[str, ...] = ("to@example.com",), **kwargs: Any
    ) -> dict[str, Any]:
        """Deliver one message, and return the arguments of its signal; ``self.line`` is its line."""
        self.serve(script)
        self.enqueue("Hello", to=to)
        with received(*ALL[1:]) as calls, self.assertLogs(DELIVERY, "INFO") as logs:
            self.drain(**kwargs)
        (self.record,) = (record for record in logs.records if record.getMessage().startswith("status="))
        self.line = self.record.getMessage()
        ((self.signal, arguments),) = calls
        return arguments


class LineTests(EventTestCase):
    def test_sent(self) -> None:
        self.deliver(always("dot", "250 2.0.0 Ok: queued as 4Xy"))
        self.assertRegex(
            self.line,
            r'^status=sent queue="scripted \d+" id=[0-9a-f]{12} mailer=default message_id=<\S+> to=to@example\.com '
            rf"attempts=1 age=\d\.\d seconds=\d\.\d+ relay=127\.0\.0\.1:{self.smtp.port} "
            r'reply="250 2\.0\.0 Ok: queued as 4Xy"$',
        )

    def test_requeued_has_the_error(self) -> None:
        self.deliver(always("dot", "451 4.3.0 later"))
        self.assertIn("status=requeued", self.line)
        self.assertIn('reply="451 4.3.0 later" error="451 4.3.0 later"', self.line)

    def test_fields_are_attributes_of_the_record(self) -> None:
        self.deliver()
        self.assertEqual((vars(self.record)["status"], vars(self.record)["to"]), ("sent", "to@example.com"))

    def test_value_with_line_ends_or_quotes_is_escaped(self) -> None:
        self.deliver(always("dot", '250 "quoted" \x1b[31m'))
        self.assertIn(r'reply="250 \"quoted\" \u001b[31m"', self.line)

    def test_neither_subject_nor_body(self) -> None:
        self.deliver()
        self.assertNotIn("Hello", self.line)
        self.assertNotIn("Body", self.line)


class SignalTests(EventTestCase):
    def test_sent(self) -> None:
        found = self.deliver()
        self.assertEqual(self.signal, "message_sent")
        self.assertEqual(found["message"].subject, "Hello")
        self.assertEqual((found["recipients"], found["refused"], found["remaining"]), (["to@example.com"], {}, []))
        self.assertEqual((found["attempts"], found["error"], found["mailer"]), (1, "", "default"))
        self.assertTrue(found["reply"].startswith("250 "))
        self.assertIs(found["sender"], QueuedEmailBackend)

    def test_sent_to_some_and_given_up_for_others(self) -> None:
        script = by_recipient({"b@example.com": "550 5.1.1 unknown"})
        found = self.deliver(script, to=("a@example.com", "b@example.com"))
        self.assertEqual((self.signal, vars(self.record)["status"]), ("message_sent", "partly"))
        self.assertEqual(found["recipients"], ["a@example.com"])
        self.assertEqual(found["refused"], {"b@example.com": "550 5.1.1 unknown"})

    def test_sent_to_some_and_requeued_for_others(self) -> None:
        script = by_recipient({"b@example.com": "450 4.2.2 full"})
        found = self.deliver(script, to=("a@example.com", "b@example.com"))
        self.assertEqual((self.signal, vars(self.record)["status"]), ("message_requeued", "partly"))
        self.assertEqual((found["recipients"], found["remaining"]), (["a@example.com"], ["b@example.com"]))

    def test_requeued(self) -> None:
        found = self.deliver(always("dot", "451 later"))
        self.assertEqual((self.signal, found["error"], found["attempts"]), ("message_requeued", "451 later", 1))
        self.assertEqual((found["recipients"], found["remaining"]), ([], ["to@example.com"]))
        self.assertEqual(found["reasons"], {"to@example.com": "451 later"})

    def test_discarded(self) -> None:
        found = self.deliver(always("dot", "451 later"), expire=0)
        self.assertEqual((self.signal, found["refused"]), ("message_discarded", {"to@example.com": "451 later"}))

    def test_buried(self) -> None:
        self.serve()
        self.queue.write(b"rubbish")
        with received() as calls, self.assertLogs(DELIVERY, "ERROR"):
            self.drain()
        ((name, found),) = calls
        self.assertEqual((name, found["message"]), ("message_buried", None))
        self.assertIn("damaged", found["error"])

    def test_queued(self) -> None:
        self.serve()
        with received() as calls:
            self.enqueue("Hello")
        ((name, found),) = calls
        self.assertEqual((name, found["message"].subject, found["queue"]), ("message_queued", "Hello", self.queue.name))
        self.assertEqual(
            (found["id"], found["message_id"]), (self.left()[0]["id"], found["message"].extra_headers["Message-ID"])
        )

    def test_group_of_queued_messages(self) -> None:
        self.serve()
        with received("message_queued", "message_events") as calls:
            self.enqueue("a", "b")
        self.assertEqual([name for name, _ in calls], ["message_queued", "message_queued", "message_events"])
        events = calls[-1][1]["events"]
        self.assertEqual(
            [(event.status, event.message.subject) for event in events], [("queued", "a"), ("queued", "b")]
        )

    def test_groups_of_a_drain_and_its_end(self) -> None:
        self.serve(in_turn(dot=["451 later"]))
        self.enqueue("a", "b", "c")
        with received("message_sent", "message_events", "drain_ended") as calls, self.assertLogs(DELIVERY):
            report = self.drain()
        events = [event for name, found in calls if name == "message_events" for event in found["events"]]
        self.assertEqual(sorted(event.status for event in events), ["requeued", "sent", "sent"])
        self.assertEqual(calls[-1][0], "drain_ended")
        self.assertEqual((calls[-1][1]["queue"], calls[-1][1]["report"]), (self.queue.name, report))

    def test_message_that_cannot_be_queued_has_no_signal(self) -> None:
        self.serve()
        broken = mock.patch.object(type(self.queue), "write_many", side_effect=QueueUnavailable)
        with received() as calls, broken, self.assertRaises(QueueUnavailable):
            self.enqueue("Hello")
        self.assertEqual(calls, [])

    def test_message_that_was_not_tried_has_no_signal(self) -> None:
        self.serve(always("AUTH", "535 no"), extensions=["AUTH PLAIN"])
        self.enqueue("a", "b")
        with received(*ALL[1:]) as calls, self.assertLogs(DELIVERY, "WARNING"):
            self.drain(self.backend(username="u", password="p"))
        self.assertEqual(calls, [])


class OwnDeliveryBackend(QueuedEmailBackend):
    """A site's backend, which delivers by itself, and leaves something odd."""

    def _send_queued_messages(self, email_message: Any, *args: Any) -> Any:
        email_message.extra_headers = 3
        return self.SENT


class UnprintableError(Exception):
    def __str__(self) -> str:
        raise ZeroDivisionError


class UndescribableTests(EventTestCase):
    """A message that cannot be described is settled all the same."""

    def assert_settled(self, backend: QueuedEmailBackend, sent: int) -> None:
        self.enqueue("a")
        with self.assertLogs(DELIVERY, "INFO") as logs:
            report = self.drain(backend)
        self.assertIn("cannot be described", "".join(logs.output))
        self.assertEqual((report.sent, report.tried, len(self.queue)), (sent, 1, 1 - sent))

    def test_message_that_a_hook_has_damaged(self) -> None:
        self.serve()
        self.assert_settled(self.backend(OwnDeliveryBackend), 1)

    def test_error_that_cannot_be_printed(self) -> None:
        self.serve()
        backend = self.backend()
        with mock.patch.object(SMTPBackend, "_send", side_effect=UnprintableError):
            self.assert_settled(backend, 0)


class ReceiverTests(MailTestCase):
    """A receiver sees a message before the queue is told, and its errors change nothing."""

    def connect(self, receiver: Any) -> None:
        signals.message_sent.connect(receiver)
        self.addCleanup(signals.message_sent.disconnect, receiver)

    def test_runs_before_the_queue_is_told(self) -> None:
        enqueue("a")
        seen: list[int] = []

        def receiver(**kwargs: Any) -> None:
            seen.append(self.queue.counts().reserved)

        self.connect(receiver)
        drain()
        self.assertEqual((seen, self.queue.counts().reserved), ([1], 0))

    def test_that_raises_is_logged_and_the_others_run(self) -> None:
        def broken(**kwargs: Any) -> None:
            raise ZeroDivisionError

        enqueue("a", "b")
        self.connect(broken)
        with received("message_sent") as calls, self.assertLogs(DELIVERY, "ERROR") as logs:
            report = drain()
        self.assertEqual((report.sent, len(calls), len(logs.output)), (2, 2, 2))
        self.assertIn("ZeroDivisionError", logs.output[0])
        self.assertEqual(self.queue.counts().waiting, 0)

    def test_errors_of_another_signal_that_a_receiver_sends_are_logged(self) -> None:
        other = Signal()
        failing = lambda **kwargs: 1 / 0  # noqa: E731
        other.connect(failing)
        signal = Signal()
        forwarding = lambda **kwargs: other.send_robust(None)  # noqa: E731
        signal.connect(forwarding)
        with self.assertLogs(DELIVERY, "ERROR") as logs:
            send_signal(signal, object, {"id": "0123456789ab"})
        self.assertIn("ZeroDivisionError", logs.output[0])

    @override_settings(MAIL_QUEUE_LEASE=1)
    def test_that_is_slow_does_not_cost_the_leases(self) -> None:
        enqueue("a", "b", "c")
        self.connect(lambda **kwargs: time.sleep(0.2))
        with mock.patch.object(Consumer, "extend", autospec=True) as extend:
            drain()
        extended = [reservation for call in extend.call_args_list for reservation in call.args[1]]
        self.assertGreaterEqual(len(extended), 2)

    def test_of_a_group_that_raises_is_logged(self) -> None:
        def broken(**kwargs: Any) -> None:
            raise ZeroDivisionError

        enqueue("a")
        signals.message_events.connect(broken)
        self.addCleanup(signals.message_events.disconnect, broken)
        with self.assertLogs(DELIVERY, "ERROR") as logs:
            self.assertEqual(drain().sent, 1)
        self.assertIn("The receiver", logs.output[0])

    def test_that_is_interrupted_is_called_again(self) -> None:
        seen: list[list[str]] = []

        def interrupted(events: Any, **kwargs: Any) -> None:
            seen.append([event.status for event in events])
            if len(seen) == 1:
                raise KeyboardInterrupt

        enqueue("a")
        signals.message_events.connect(interrupted)
        self.addCleanup(signals.message_events.disconnect, interrupted)
        with self.assertRaises(KeyboardInterrupt):
            drain()
        self.assertEqual((seen, self.queue.counts().waiting), ([["sent"], ["sent"]], 0))

    @override_settings(ADMINS=ADMINS)
    def test_that_raises_is_not_mailed(self) -> None:
        def broken(**kwargs: Any) -> None:
            raise ZeroDivisionError

        enqueue("a")
        self.connect(broken)
        with on_the_root_logger(AdminEmailHandler(), logging.ERROR):
            drain()
        self.assertEqual(self.queue.counts().waiting, 0)

    def test_without_a_name_that_raises_is_logged(self) -> None:
        signal = Signal()
        receiver = mock.Mock(side_effect=ZeroDivisionError, spec=[])
        signal.connect(receiver)
        with self.assertLogs(DELIVERY, "ERROR"):
            send_signal(signal, object, {"id": "0123456789ab"})


class CallbackTests(MailTestCase):
    def drain(self, on_event: Any) -> Any:
        backend = QueuedEmailBackend()
        backend.options = DrainOptions(on_event=on_event)
        return drain(backend)

    def test_is_called_before_the_queue_is_told(self) -> None:
        seen: list[tuple[str, int]] = []

        def on_event(event: Event) -> None:
            seen.append((event.status, self.queue.counts().reserved))

        enqueue("a")
        self.drain(on_event)
        self.assertEqual(seen, [("sent", 1)])

    def test_that_fails_is_called_no_more_and_loses_nothing(self) -> None:
        on_event = mock.Mock(side_effect=BrokenPipeError)
        enqueue(*map(str, range(30)))
        with self.assertLogs(DELIVERY, "ERROR") as logs:
            report = self.drain(on_event)
        self.assertEqual((report.sent, on_event.call_count, len(logs.output)), (30, 1, 1))
        self.assertEqual((len(self.inbox.subjects), self.queue.counts().reserved), (30, 0))
