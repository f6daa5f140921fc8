"""Trying again: when, what is kept of a try, and what the log of deliveries says of it."""

from __future__ import annotations

import time
from typing import Any

from django.test import override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import MailTestCase, drain, enqueue, message
from tests.smtp import always, in_turn, stored_then
from tests.smtp import fin as hang_up
from tests.smtp.cases import DELIVERY, ScriptedTestCase


class DelayedQueueTests(MailTestCase):
    """With the database queue, which can defer a message."""

    def fail_once(self) -> None:
        with self.scripted(always("dot", "451 later")), self.assertLogs(DELIVERY, "WARNING"):
            drain()

    def test_without_a_delay_the_next_drain_tries_again(self) -> None:
        enqueue("a")
        self.fail_once()
        self.assertEqual(drain().sent, 1)

    def test_with_a_delay_it_does_not(self) -> None:
        enqueue("a")
        with override_settings(MAIL_QUEUE_RETRY_DELAY=60):
            self.fail_once()
            self.assertEqual(self.queue.counts().deferred, 1)
            self.assertEqual(drain().result, (0, 0, 0))
        self.assertEqual(len(self.queue), 1)

    def test_fresh_mail_passes_what_is_deferred(self) -> None:
        with override_settings(MAIL_QUEUE_RETRY_DELAY=1):
            enqueue("a")
            self.fail_once()
            enqueue("b")
            drain()
            self.assertEqual(self.inbox.subjects, ["b"])
            time.sleep(1.1)
            drain()
        self.assertEqual(self.inbox.subjects, ["b", "a"])


class KeptTests(ScriptedTestCase):
    def test_attempts_and_last_error_are_kept(self) -> None:
        self.serve(in_turn(DATA=["451 busy", "452 full"]))
        self.enqueue("a")
        self.failing_drain()
        self.assertEqual((self.left()[0]["attempts"], "busy" in self.left()[0]["last_error"]), (1, True))
        self.failing_drain()
        self.assertEqual((self.left()[0]["attempts"], "full" in self.left()[0]["last_error"]), (2, True))

    def test_log_says_which_message_which_attempt_and_what(self) -> None:
        self.serve(always("DATA", "451 busy"))
        self.backend().send_messages([message("a", headers={"message-id": "<1@example.com>"})])
        self.failing_drain()
        self.failing_drain()
        self.assertEqual(len(self.lines), 1)
        self.assertEqual(
            self.lines[0], f"{self.left()[0]['id']} to to@example.com: 451 busy (attempt 2, next in the next run)"
        )

    def test_log_says_it_of_a_partly_delivered_message_too(self) -> None:
        self.serve(in_turn(RCPT=[None, "450 later"]))
        self.enqueue("a", to=["one@example.com", "two@example.com"])
        self.failing_drain()
        self.assertRegex(self.lines[0], r" to two@example\.com: 450 later \(attempt 1, next in the next run\)$")

    def test_reply_that_is_lost_after_the_message_is_a_possible_duplicate(self) -> None:
        self.serve(in_turn(dot=[stored_then(hang_up)]))
        self.enqueue("a")
        self.failing_drain()
        self.assertIn("it may arrive twice", self.lines[0])
        self.assertIn("it may arrive twice", self.left()[0]["last_error"])
        self.drain()
        first, second = self.smtp.stored
        self.assertEqual(first.content, second.content)

    def test_hook_that_throws_away_what_is_ours(self) -> None:
        class Site(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                email_message_dict["mailqueue"] = {"attempts": "many"} if email_message.subject == "a" else "ours"
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        self.serve(always("DATA", "451 busy"))
        self.enqueue("a", "b")
        self.assertEqual(self.failing_drain(self.backend(Site)).requeued, 2)
        self.assertEqual(len(self.queue), 2)


#: Replies that are about the message or its recipient, by step.
NEVER = {"MAIL": "552 5.3.4 too big", "RCPT": "550 5.1.1 unknown", "dot": "554 5.6.0 unreadable"}


class RejectedTests(ScriptedTestCase):
    """MAIL_QUEUE_RETRY_REJECTED decides about a 5xx to the whole message."""

    STEPS = ("MAIL", "RCPT", "dot")

    def test_tried_again_by_default(self) -> None:
        for step in self.STEPS:
            with self.subTest(step=step):
                self.serve(in_turn(**{step: [NEVER[step]]}))
                self.enqueue("a")
                self.assertEqual(self.failing_drain().requeued, 1)
                self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.discards(), [])

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_discarded_when_so_set(self) -> None:
        for step in self.STEPS:
            with self.subTest(step=step):
                self.serve(in_turn(**{step: [NEVER[step]]}))
                self.enqueue(step)
                self.assertEqual(self.failing_drain().discarded, 1)
                self.assertIn(NEVER[step], self.discards()[-1])
        self.assertEqual(len(self.discards()), len(self.STEPS))

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_what_is_not_for_good_is_tried_again(self) -> None:
        for step in self.STEPS:
            for fault in ("451 later", "421 closing", hang_up):
                with self.subTest(step=step, fault=fault):
                    self.serve(in_turn(**{step: [fault]}))
                    self.enqueue("a")
                    self.assertEqual(self.failing_drain().requeued, 1)
                    self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.discards(), [])

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_endless_line_is_no_refusal(self) -> None:
        self.serve(in_turn(dot=["550 " + "x" * 9000]))
        self.enqueue("a")
        self.assertEqual(self.failing_drain().requeued, 1)
