"""Overrides that hide what the server said, and interrupts after it: nothing is lost, and nothing is sent twice."""

from __future__ import annotations

from smtplib import SMTPException
from typing import Any

from django.test import override_settings

from mailqueue_backend.delivery.report import Report
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.smtp import Script, by_recipient, in_turn
from tests.smtp.cases import ScriptedTestCase

X, Y = "x@example.com", "y@example.org"
LATER = "451 4.3.0 later"


class SwallowingBackend(QueuedEmailBackend):
    """Returns False where the server refuses a message."""

    def _send(self, email_message: Any) -> Any:
        try:
            return super()._send(email_message)  # type: ignore[misc]
        except SMTPException:
            return False


class SwallowedTests(ScriptedTestCase):
    def deliver(self, script: Script, *to: str) -> list[str] | None:
        """Drain once; return the recipients that remain, or None for all."""
        self.serve(script)
        self.enqueue("a", to=to)
        self.failing_drain(self.backend(SwallowingBackend))
        (meta,) = self.left()
        remaining: list[str] | None = meta.get("remaining")
        return remaining

    def test_refusal_after_one_that_was_tried_again(self) -> None:
        self.serve(in_turn(RCPT=[None, "450 4.2.0 later"], dot=[None, LATER, LATER]))
        self.enqueue("first", "a", to=[X])
        self.assertEqual(self.failing_drain(self.backend(SwallowingBackend)).sent, 1)
        self.assertEqual(len(self.left()), 1)

    def test_refusal_of_a_further_transaction(self) -> None:
        script = in_turn(RCPT=[None, "452 4.5.3 too many"], dot=[None, LATER])
        self.assertEqual(self.deliver(script, X, Y), [Y])
        self.assertEqual(self.smtp.deliveries, {X: 1})

    def test_refusal_beside_a_recipient_who_was_refused(self) -> None:
        def script(step: str, argument: str) -> Any:
            return LATER if step == "dot" else by_recipient({X: "550 5.1.1 unknown"})(step, argument)

        self.assertIsNone(self.deliver(script, X, Y))
        self.queue.read_many(9)
        with override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
            self.assertEqual(self.deliver(script, X, Y), [Y])


class InterruptedHookTests(ScriptedTestCase):
    """A hook is interrupted after the default has decided."""

    class Hook(QueuedEmailBackend):
        def _send_queued_messages(self, *args: Any) -> Any:
            super()._send_queued_messages(*args)
            raise KeyboardInterrupt

    def interrupt(self) -> Report:
        """Drain until the hook is interrupted; keep the lines of the log in ``self.lines``."""
        backend = self.backend(self.Hook)
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged, self.assertRaises(KeyboardInterrupt):
            self.drain(backend)
        self.lines = logged.output
        return backend.report

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_discarded_message_is_discarded_once(self) -> None:
        self.serve(by_recipient({X: "550 5.1.1 unknown"}))
        self.enqueue("a", to=[X])
        self.interrupt()
        self.assertEqual((len(self.queue), len(self.discards())), (0, 1))

    def test_message_that_some_have_goes_to_the_others(self) -> None:
        self.serve(by_recipient({X: "450 4.2.0 later"}))
        self.enqueue("a", to=[X, Y])
        self.interrupt()
        self.assertEqual(self.left()[0]["remaining"], [X])

    def test_recipient_who_was_given_up_is_counted_and_refusals_are_logged(self) -> None:
        self.serve(by_recipient({X: "550 5.1.1 unknown"}))
        self.enqueue("a", to=[X, Y])
        report = self.interrupt()
        self.assertEqual((report.recipients_given_up, len(self.queue)), (1, 0))
        self.assertIn(f"to {X}: 550 5.1.1 unknown", self.lines[0])


class OneMailboxTests(ScriptedTestCase):
    def test_domain_in_another_case_is_the_same_recipient(self) -> None:
        self.serve(in_turn(RCPT=[None, "450 4.2.0 later"]))
        self.enqueue("a", to=["x@EXAMPLE.com", "x@example.com"])
        self.assertEqual(self.drain().sent, 1)
        self.assertEqual((self.smtp.said("RCPT"), len(self.queue)), (1, 0))
