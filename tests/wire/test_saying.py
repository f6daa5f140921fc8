"""What a drain says: a line for each reason, in words, on stderr; figures on stdout."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from io import StringIO
from itertools import count
from typing import Any
from unittest import mock

from django.core.management import CommandError, call_command
from django.test import override_settings

from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests import smtp
from tests.cases import BACKEND, QueueTestCase, enqueue, message
from tests.smtp import ScriptedServer, always, by_recipient, in_turn
from tests.smtp.cases import DELIVERY, ScriptedTestCase

NOTHING = "0 messages sent and 0 messages discarded out of 0 messages.\n"


class LineTests(ScriptedTestCase):
    def failures(self, backend: Any = None, level: str = "WARNING") -> list[logging.LogRecord]:
        with self.assertLogs(DELIVERY, level) as logged:
            self.drain(backend)
        return [record for record in logged.records if record.levelno >= logging.WARNING]

    def test_of_each_reason_and_who_is_concerned(self) -> None:
        one, two, three, four, five = (f"{name}@example.com" for name in ("one", "two", "three", "four", "five"))
        replies = dict.fromkeys([one, two], "550 5.1.1 unknown") | dict.fromkeys([three, four], "450 4.2.1 later")
        self.serve(by_recipient(replies))
        self.enqueue("a", to=[one, two, three, four, five])
        lines = [record.getMessage() for record in self.failures()]
        name = self.left()[0]["id"]
        self.assertEqual(
            lines,
            [
                f"{name} to {one}, {two}: 550 5.1.1 unknown (attempt 1, given up)",
                f"{name} to {three}, {four}: 450 4.2.1 later (attempt 1, next in the next run)",
            ],
        )

    @override_settings(MAIL_QUEUE_RETRY_DELAY=240)
    def test_of_a_message_that_waits_says_for_how_long(self) -> None:
        self.serve(always("DATA", "451 busy"))
        self.enqueue("a")
        (record,) = self.failures()
        self.assertTrue(record.getMessage().endswith(" to to@example.com: 451 busy (attempt 1, next in 4 minutes)"))

    def test_of_many_recipients_names_three(self) -> None:
        self.serve(always("RCPT", "450 later"))
        self.enqueue("a", to=[f"{number}@example.com" for number in range(9)])
        (record,) = self.failures()
        self.assertIn(" to 0@example.com, 1@example.com, 2@example.com and 6 more: 450 later (", record.getMessage())

    def test_of_several_lines_is_one(self) -> None:
        self.serve(always("dot", "550-5.7.26 Unauthenticated email is not accepted\r\n550 5.7.26 due to its policy."))
        self.enqueue("a")
        (record,) = self.failures()
        self.assertIn(": 550 5.7.26 Unauthenticated email is not accepted due to its policy. (", record.getMessage())

    def test_of_the_server_or_the_network_has_no_traceback(self) -> None:
        for action in ("451 busy", smtp.fin, smtp.rst, smtp.hang, smtp.garbage):
            with self.subTest(action=action):
                self.serve(always("DATA", action))
                self.enqueue("a")
                (record,) = self.failures(self.backend(timeout=0.5))
                self.assertIsNone(record.exc_info)
                self.assertNotRegex(record.getMessage(), r"b'|Error|Exception|\(4\d\d,")
                self.queue.read_many(1)

    def test_of_the_server_has_one_at_debug(self) -> None:
        self.serve(always("dot", "554 no"))
        self.enqueue("a")
        (record,) = self.failures(level="DEBUG")
        self.assertTrue(record.exc_info)

    def test_of_the_site_s_own_code_has_one(self) -> None:
        class Site(QueuedEmailBackend):
            def _send(self, email_message: Any) -> bool:
                raise KeyError("a bug of the site")

        self.serve()
        self.enqueue("a")
        (record,) = self.failures(self.backend(Site))
        self.assertTrue(record.exc_info and isinstance(record.exc_info[1], KeyError))

    def test_of_a_server_that_is_down_says_how_many_messages_wait_and_since_when(self) -> None:
        self.serve()
        self.smtp.stop_listening()
        self.enqueue("old", created=datetime.now() - timedelta(minutes=3, seconds=5))
        self.enqueue(*map(str, range(11)))
        (record,) = self.failures()
        self.assertEqual(
            record.getMessage(),
            f"127.0.0.1:{self.smtp.port}: connection refused. 12 messages wait, the first since 3 minutes.",
        )
        self.assertIsNone(record.exc_info)

    def test_of_a_server_that_is_down_says_so_if_no_message_waits(self) -> None:
        self.serve()
        self.smtp.stop_listening()
        self.enqueue("a", created=datetime.now() - timedelta(days=2))
        self.assertEqual(
            [record.getMessage() for record in self.failures()],
            [f"127.0.0.1:{self.smtp.port}: connection refused. No message waits."],
        )


@override_settings(EMAIL_BACKEND=BACKEND)
class CommandTestCase(QueueTestCase):
    def serve(self, script: smtp.Script = smtp.good) -> ScriptedServer:
        server = ScriptedServer(script)
        server.__enter__()
        self.addCleanup(server.__exit__)
        settings = override_settings(EMAIL_HOST="127.0.0.1", EMAIL_PORT=server.port)
        settings.enable()
        self.addCleanup(settings.disable)
        return server

    def run_command(self, *arguments: str) -> tuple[str, str]:
        """Return what it prints on stdout, and on stderr; what is logged is in ``self.lines``."""
        stdout, stderr = StringIO(), StringIO()
        with self.assertLogs("mailqueue_backend", "WARNING") as logged:
            logging.getLogger("mailqueue_backend").warning("so that there is something")
            try:
                call_command("process_mail_queue", *arguments, stdout=stdout, stderr=stderr)
            finally:
                self.stdout = stdout.getvalue()
                self.lines = [record.getMessage() for record in logged.records[1:]]
        return self.stdout, stderr.getvalue()


class SummaryTests(CommandTestCase):
    def test_run_in_which_all_went_well(self) -> None:
        self.serve()
        enqueue("a", "b")
        expected = "2 messages sent and 0 messages discarded out of 2 messages.\n"
        self.assertEqual((self.run_command(), self.lines), ((expected, ""), []))

    def test_what_else_has_become_of_messages_stands_before_it(self) -> None:
        self.serve(by_recipient({"dead@example.com": "550 5.1.1 unknown", "full@example.com": "452 4.2.2 full"}))
        backend = QueuedEmailBackend()
        backend.send_messages([message("a", ["dead@example.com", "to@example.com"])])
        backend.send_messages([message("b", ["full@example.com"])])
        self.queue.write(b"no pickle")
        self.assertEqual(
            self.run_command()[0],
            "1 message requeued, 1 message set aside, 1 recipient given up.\n"
            "1 message sent and 0 messages discarded out of 3 messages.\n",
        )

    def test_only_what_has_happened_does(self) -> None:
        self.serve(by_recipient(dict.fromkeys(["one@example.com", "two@example.com"], "550 5.1.1 unknown")))
        QueuedEmailBackend().send_messages([message("a", ["one@example.com", "two@example.com", "to@example.com"])])
        self.assertEqual(self.run_command()[0].splitlines()[0], "2 recipients given up.")

    def test_quiet_run_prints_nothing(self) -> None:
        self.serve(always("DATA", "451 busy"))
        enqueue("a")
        self.assertEqual(self.run_command("--verbosity", "0"), ("", ""))

    def test_it_stands_before_an_error(self) -> None:
        self.serve()
        enqueue("a")
        drain = QueuedEmailBackend.send_queued_messages

        def broken(backend: Any, *arguments: Any) -> Any:
            drain(backend, *arguments)
            raise QueueUnavailable("it is down")

        with (
            mock.patch.object(QueuedEmailBackend, "send_queued_messages", broken),
            self.assertRaisesMessage(CommandError, "it is down"),
        ):
            self.run_command()
        self.assertEqual(self.stdout, "1 message sent and 0 messages discarded out of 1 message.\n")

    def test_no_mailer_that_queues_is_said_on_stderr(self) -> None:
        with override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend"):
            stdout, _ = self.run_command()
        self.assertEqual(stdout, NOTHING)


class LoopTests(CommandTestCase):
    def loop(self, *between: Callable[[], object]) -> tuple[str, str]:
        """Run once, and once more after each of these."""
        steps = iter(between)

        def wait(stop: StopRequest, seconds: float) -> bool:
            step = next(steps, None)
            if step is not None:
                step()
            return step is None

        with mock.patch.object(StopRequest, "wait", wait):
            return self.run_command("--loop")

    def test_run_without_mail_prints_nothing(self) -> None:
        self.serve()
        enqueue("a")
        stdout, stderr = self.loop(bool, bool, lambda: enqueue("b"))
        self.assertEqual((stdout.count("1 message sent"), len(stdout.splitlines()), stderr), (2, 2, ""))

    def test_server_that_is_down_is_said_once_and_so_is_its_return(self) -> None:
        server = self.serve(always("banner", "421 4.3.2 closed"))
        enqueue("a")

        def open_it() -> None:
            server.script = smtp.good

        stdout, _ = self.loop(bool, bool, open_it, bool)
        self.assertEqual(
            self.lines,
            [
                f"127.0.0.1:{server.port}: 421 4.3.2 closed. 1 message waits, since 0 seconds.",
                f"127.0.0.1:{server.port}: works again.",
            ],
        )
        self.assertEqual(stdout, "1 message sent and 0 messages discarded out of 1 message.\n")

    def test_reply_with_an_id_of_its_own_is_said_once_too(self) -> None:
        for step, reply in (("MAIL", "530 5.7.0 Authentication Required"), ("DATA", "451 4.7.0 later")):
            with self.subTest(step=step):
                replies = (f"{reply} 5b{number}f-42 - gsmtp" for number in count())
                self.serve(in_turn(**{step: replies}))
                enqueue("a")
                self.loop(bool, bool)
                self.assertEqual(len(self.lines), 1, self.lines)
                self.queue.read_many(1)

    def test_message_that_is_refused_alike_is_said_once(self) -> None:
        self.serve(in_turn(DATA=["451 busy", "451 busy", "451 full"]))
        enqueue("a")
        self.loop(bool, bool)
        self.assertEqual(
            [line.partition(": ")[2] for line in self.lines],
            [
                "451 busy (attempt 1, next in the next run)",
                "451 full (attempt 3, next in the next run)",
            ],
        )

    def test_queue_that_is_down_is_said_once_and_so_is_its_return(self) -> None:
        down = QueueUnavailable("it restarts")
        with mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=[down, down, (0, 0, 0)]):
            stdout, stderr = self.loop(bool, bool)
        self.assertEqual((stdout, stderr.splitlines()), ("", ["it restarts", "The queue is available again."]))
