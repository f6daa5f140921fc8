"""The breaker: a server that cannot be reached is asked once, and that is no message's fault."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from django.test import override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import smtp as server
from tests.certificates import client_context, needs_openssl, server_context
from tests.smtp import always, in_turn
from tests.smtp.cases import DELIVERY, ScriptedTestCase

OLD = datetime(2020, 1, 1)


class BreakerTests(ScriptedTestCase):
    def test_a_thousand_messages_cost_one_attempt(self) -> None:
        self.serve(always("banner", server.fin))
        self.enqueue(*map(str, range(1000)))
        began = time.monotonic()
        report = self.failing_drain()
        self.assertLess(time.monotonic() - began, 2)
        self.assertEqual((report.sent, report.requeued, len(self.queue)), (0, 0, 1000))
        self.assertEqual(self.smtp.connections, 1)
        self.assertEqual({kept.get("attempts", 0) for kept in self.left()}, {0})

    def test_refusal_before_the_first_message_refuses_no_message(self) -> None:
        for steps in ({"banner": "554 no"}, {"EHLO": "550 no", "HELO": "550 no"}, {"AUTH": "535 who?"}):
            with self.subTest(steps=steps), override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
                self.serve(lambda step, argument, steps=steps: steps.get(step), extensions=["AUTH PLAIN"])
                self.enqueue("a", "b")
                report = self.failing_drain(self.backend(username="user", password="wrong"))
                self.assertEqual((report.discarded, len(self.queue), self.smtp.connections), (0, 2, 1))
                self.assertEqual([kept["attempts"] for kept in self.left()], [0, 0])
                self.queue.read_many(2)
        self.assertEqual(self.discards(), [])

    def test_greeting_comes_before_the_first_message_without_a_login_too(self) -> None:
        self.serve(in_turn(EHLO=["550 no"], HELO=["550 no"]))
        self.enqueue("a")
        report = self.failing_drain()
        self.assertEqual((report.requeued, self.smtp.said("MAIL")), (0, 0))
        self.assertEqual(self.left()[0]["attempts"], 0)

    def test_expired_messages_are_discarded_while_it_is_open(self) -> None:
        self.serve(always("banner", "421 later"))
        self.enqueue("a", "b", created=OLD)
        self.enqueue("c")
        self.enqueue("d", created=OLD)
        report = self.failing_drain()
        # It ends at the first that is not expired.
        self.assertEqual((report.discarded, report.requeued, self.smtp.connections), (2, 0, 1))
        self.assertEqual(len(self.queue), 2)
        self.assertEqual([line.partition("Subject: ")[2][:1] for line in self.discards()], ["a", "b"])
        self.assertIn("421", self.discards()[0])

    def test_no_other_worker_is_started_while_it_is_open(self) -> None:
        self.serve(always("banner", "421 later"))
        self.enqueue(*map(str, range(60)), created=OLD)
        report = self.failing_drain()
        self.assertEqual((report.discarded, self.smtp.connections), (60, 1))

    def test_hooks_run_as_ever_while_it_is_open(self) -> None:
        seen: list[str] = []

        class Site(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, *args: Any) -> Any:
                seen.append(email_message.subject)
                super()._send_queued_messages(email_message, *args)
                return self.NOQUEUE

        self.serve(always("banner", "421 later"))
        self.enqueue("a", "b", "c")
        self.assertEqual(self.failing_drain(self.backend(Site)).discarded, 3)
        self.assertEqual((seen, self.smtp.connections), (["a", "b", "c"], 1))

    def test_next_drain_tries_again(self) -> None:
        self.serve(in_turn(banner=["421 later"]))
        self.enqueue("a", "b")
        backend = self.backend()
        self.assertEqual(self.failing_drain(backend).sent, 0)
        self.assertEqual(self.drain(backend).sent, 2)

    def test_message_that_met_it_does_not_wait(self) -> None:
        self.serve(in_turn(banner=["421 later"]))
        self.enqueue("a")
        with override_settings(MAIL_QUEUE_RETRY_DELAY=3600):
            self.failing_drain()
            self.assertEqual(self.drain().sent, 1)

    def test_silent_backend_loses_nothing(self) -> None:
        self.serve(in_turn(banner=["421 later"], DATA=["554 no"]))
        self.enqueue("a", "b")
        self.assertEqual(self.failing_drain(self.backend(fail_silently=True)).requeued, 0)
        report = self.failing_drain(self.backend(fail_silently=True))
        self.assertEqual((report.sent, report.requeued), (1, 1))

    def test_login_that_the_server_does_not_know(self) -> None:
        self.serve()
        self.enqueue("a")
        self.assertEqual(self.failing_drain(self.backend(username="user", password="secret")).sent, 0)
        self.assertEqual((self.smtp.said("MAIL"), self.smtp.said("AUTH")), (0, 0))

    def test_it_says_why_once(self) -> None:
        self.serve(always("banner", "421 come back later"))
        self.enqueue("a", "b", created=OLD)
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            self.drain()
        self.assertEqual(len(logged.output), 1)
        self.assertIn("come back later", logged.output[0])


@needs_openssl
class NoClearTextTests(ScriptedTestCase):
    """With TLS asked for, no message and no password is ever said in the clear, on any Django."""

    def assertSaysNothing(self, script: server.Script, **kwargs: Any) -> None:
        self.serve(script, extensions=["PIPELINING", "AUTH PLAIN"], **kwargs)
        self.enqueue("a", "b", "c")
        backend = self.backend(use_tls=True, username="user", password="secret", timeout=1)
        backend.ssl_context = client_context()
        self.assertEqual(self.failing_drain(backend).sent, 0)
        self.failing_drain(backend)
        said = {verb.lower() for session in self.smtp.commands for verb in session}
        self.assertEqual(said & {"auth", "mail", "rcpt", "data"}, set())

    def test_whatever_starttls_is_answered(self) -> None:
        # The last one strips: it looks like an answer to all that follows.
        answers = ["454 not now", "501 how?", "421 closing", "250 ok", "220 go\r\n" + "250 ok\r\n" * 9]
        faults = [server.fin, server.rst, server.hang, server.torn, server.garbage, server.endless]
        for answer in [*answers, *faults]:
            with self.subTest(answer=answer):
                self.assertSaysNothing(
                    always("STARTTLS", answer) if answer not in answers[4:] else _then_plain(answers[4]),
                    context=server_context(),
                )

    def test_server_that_does_not_offer_it(self) -> None:
        self.assertSaysNothing(lambda step, argument: None)

    def test_certificate_that_is_not_trusted(self) -> None:
        self.serve(context=server_context())
        self.enqueue("a")
        self.assertEqual(self.failing_drain(self.backend(use_tls=True)).sent, 0)
        self.assertEqual(self.smtp.said("MAIL"), 0)


def _then_plain(reply: str) -> server.Script:
    """Answer STARTTLS, and go on in the clear."""
    return lambda step, argument: {"STARTTLS": reply, "TLS": lambda session: ""}.get(step)
