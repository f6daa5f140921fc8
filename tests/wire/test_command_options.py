"""process_mail_queue: --json, --verbosity 2, the progress bar and --fail-on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import struct
import subprocess
import sys
import termios
from importlib.util import find_spec
from io import StringIO
from typing import Any
from unittest import mock, skipUnless

from django.core.management import CommandError, call_command
from django.test import TransactionTestCase, override_settings

from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.paused import pause
from tests.cases import BACKEND, QueueTestCase, enqueue, message
from tests.smtp import Script, ScriptedServer, always, by_recipient, good
from tests.smtp.cases import DELIVERY
from tests.smtp.inbox import SMTPServerMixin

LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
NO_BAR = mock.patch.dict(sys.modules, tqdm=None)


class Terminal(StringIO):
    """A stream that is a terminal."""

    def isatty(self) -> bool:
        return True


class CommandTestCase(QueueTestCase):
    def run_command(self, *args: str, script: Script = good, stdout: StringIO | None = None, **options: Any) -> None:
        """Run the command against a scripted server; what it prints is in ``self.stdout`` and ``self.stderr``."""
        self.stdout, self.stderr = stdout or StringIO(), StringIO()
        with ScriptedServer(script) as server, override_settings(EMAIL_PORT=server.port):
            call_command("process_mail_queue", *args, stdout=self.stdout, stderr=self.stderr, **options)

    def printed(self) -> list[str]:
        return self.stdout.getvalue().splitlines()


class JSONTests(CommandTestCase):
    def run_json(self, *args: str, **kwargs: Any) -> Any:
        self.run_command("--json", *args, **kwargs)
        (line,) = self.printed()
        return json.loads(line)

    def test_is_one_object_with_the_figures_of_all_queues_and_of_each(self) -> None:
        enqueue("a", "b")
        found = self.run_json()
        figures = {"sent": 2, "discarded": 0, "length": 2, "requeued": 0, "buried": 0, "recipients_given_up": 0}
        self.assertGreater(found.pop("seconds"), 0)
        queue = {"queue": "MAIL_QUEUE", **figures, "paused": None, "reasons_to_wait": []}
        self.assertEqual(found, {**figures, "failure": None, "queues": [queue]})
        self.assertEqual(self.stderr.getvalue(), "")

    def test_has_the_reason_of_a_pause_and_stderr_has_the_words(self) -> None:
        pause(self.queue, "moving")
        self.assertEqual(self.run_json()["queues"][0]["paused"], "moving")
        self.assertIn("MAIL_QUEUE is paused: moving.", self.stderr.getvalue())

    def test_says_why_messages_wait(self) -> None:
        enqueue("a")
        with self.assertLogs(DELIVERY, "WARNING"):
            found = self.run_json(script=always("banner", "421 4.3.2 closed"))
        self.assertEqual((found["requeued"], found["queues"][0]["reasons_to_wait"]), (0, ["421 4.3.2 closed"]))

    def test_is_printed_before_an_error(self) -> None:
        broken = mock.patch.object(QueuedEmailBackend, "send_queued_messages", side_effect=QueueUnavailable("down"))
        with broken, self.assertRaisesMessage(CommandError, "down"):
            self.run_command("--json")
        self.assertEqual(json.loads(self.stdout.getvalue())["failure"], "down")

    @override_settings(EMAIL_BACKEND=LOCMEM)
    def test_of_a_site_without_a_queue_has_zeros(self) -> None:
        found = self.run_json()
        self.assertEqual((found["length"], found["queues"]), (0, []))
        self.assertIn("No mailer of this site", self.stderr.getvalue())

    def test_is_one_line_per_run_in_a_loop(self) -> None:
        enqueue("a")
        with mock.patch.object(StopRequest, "wait", side_effect=[False, False, True]):
            self.run_command("--json", "--loop")
        self.assertEqual([json.loads(line)["sent"] for line in self.printed()], [1, 0, 0])

    def test_leaves_the_lines_of_messages_to_stderr(self) -> None:
        enqueue("a")
        self.assertEqual(self.run_json(verbosity=2)["sent"], 1)
        self.assertRegex(self.stderr.getvalue(), r"^sent [0-9a-f]{12} to to@example\.com: 250 ")


class MessageLineTests(CommandTestCase):
    def test_has_the_status_id_recipients_and_reply(self) -> None:
        enqueue("a")
        self.run_command(script=always("dot", "250 2.0.0 Ok: queued as 4Xy"), verbosity=2)
        line, summary = self.printed()
        self.assertRegex(line, r"^sent [0-9a-f]{12} to to@example\.com: 250 2\.0\.0 Ok: queued as 4Xy$")
        self.assertTrue(summary.startswith("1 message sent"))

    def test_has_the_error(self) -> None:
        enqueue("a")
        with self.assertLogs(DELIVERY, "WARNING"):
            self.run_command(script=always("dot", "451 4.3.0 later"), verbosity=2)
        self.assertRegex(self.printed()[0], r"^requeued [0-9a-f]{12} to to@example\.com: 451 4\.3\.0 later$")

    def test_of_a_message_that_is_set_aside(self) -> None:
        self.queue.write(b"rubbish")
        with self.assertLogs(DELIVERY, "ERROR"):
            self.run_command(verbosity=2)
        self.assertRegex(self.printed()[0], r"^buried [0-9a-f]{12}: .*damaged")

    def test_has_no_control_characters(self) -> None:
        enqueue("a")
        self.run_command(script=always("dot", "250 \x1b[31mred"), verbosity=2)
        self.assertIn("250 ?[31mred", self.printed()[0])

    def test_is_not_printed_otherwise(self) -> None:
        enqueue("a")
        self.run_command()
        self.assertEqual(len(self.printed()), 1)


class FakeBar:
    """Stands in for tqdm's class."""

    made: list[FakeBar] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.total, self.done, self.is_closed = options, None, 0, False
        self.made.append(self)

    def __enter__(self) -> FakeBar:
        return self

    def __exit__(self, *details: object) -> None:
        self.is_closed = True

    def update(self) -> None:
        self.done += 1


class ProgressTests(CommandTestCase):
    def bars(self, *args: str, stdout: StringIO | None = None, **options: Any) -> list[FakeBar]:
        enqueue("a", "b", "c")
        FakeBar.made = []
        with mock.patch.dict(sys.modules, tqdm=mock.Mock(tqdm=FakeBar)):
            self.run_command(*args, stdout=stdout or Terminal(), **options)
        return FakeBar.made

    def test_moves_on_with_each_message(self) -> None:
        (bar,) = self.bars()
        self.assertEqual((bar.done, bar.total, bar.is_closed), (3, 3, True))

    def test_ends_at_the_limit(self) -> None:
        (bar,) = self.bars("--limit", "2")
        self.assertEqual((bar.done, bar.total), (2, 2))

    def test_is_for_a_terminal(self) -> None:
        self.assertEqual(self.bars(stdout=StringIO()), [])

    def test_is_not_shown_beside_other_output(self) -> None:
        for options in ({"verbosity": 0}, {"verbosity": 2}, {"json": True}):
            with self.subTest(options):
                self.assertEqual(self.bars(**options), [])
        with mock.patch.object(StopRequest, "wait", return_value=True):
            self.assertEqual(self.bars("--loop"), [])

    @NO_BAR
    def test_is_not_missed_without_tqdm(self) -> None:
        enqueue("a")
        self.run_command(stdout=Terminal())
        self.assertEqual(len(self.printed()), 1)


class FailOnTests(CommandTestCase):
    def status(self, kind: str, script: Script, **options: Any) -> int:
        """Return the exit status for one message to a script."""
        QueuedEmailBackend().send_messages([message("a", ["a@example.com", "b@example.com"])])
        self.error = ""
        try:
            with self.assertLogs(DELIVERY, "WARNING"):
                self.run_command("--fail-on", kind, script=script, **options)
        except CommandError as error:
            self.error = str(error)
            return error.returncode
        finally:
            self.queue.read_many(9)
        return 0

    def statuses(self, script: Script, **options: Any) -> list[int]:
        return [self.status(kind, script, **options) for kind in ("never", "requeued", "discarded", "dead")]

    def test_requeued(self) -> None:
        self.assertEqual(self.statuses(always("dot", "451 later")), [0, 1, 0, 0])
        self.assertEqual(self.printed()[-1], "0 messages sent and 0 messages discarded out of 1 message.")

    def test_discarded(self) -> None:
        self.assertEqual(self.statuses(always("dot", "451 later"), expire=0), [0, 1, 1, 0])
        self.assertIn("1 message discarded", self.stdout.getvalue())

    def test_recipients_given_up_count_as_discarded(self) -> None:
        script = by_recipient({"b@example.com": "550 5.1.1 unknown"})
        self.assertEqual(self.statuses(script), [0, 1, 1, 0])

    def test_dead(self) -> None:
        for kind, status in {"never": 0, "requeued": 1, "discarded": 1, "dead": 1}.items():
            self.queue.write(b"rubbish")
            with self.subTest(kind):
                self.assertEqual(self.status(kind, good), status)

    def test_server_that_cannot_be_reached_counts_as_requeued(self) -> None:
        self.assertEqual(self.statuses(always("banner", "421 4.3.2 closed")), [0, 1, 0, 0])

    def test_the_error_says_what_has_happened(self) -> None:
        self.status("requeued", always("dot", "451 later"))
        self.assertEqual(self.error, "Not all mail was delivered: 1 message requeued.")
        self.status("requeued", always("banner", "421 4.3.2 closed"))
        self.assertEqual(self.error, "Not all mail was delivered: messages wait (421 4.3.2 closed).")

    def test_success(self) -> None:
        enqueue("a")
        self.run_command("--fail-on", "requeued")
        self.assertEqual(len(self.printed()), 1)

    def test_does_not_work_in_a_loop(self) -> None:
        with self.assertRaisesMessage(CommandError, "--fail-on does not work with --loop"):
            self.run_command("--loop", "--fail-on", "dead")


@override_settings(EMAIL_BACKEND=BACKEND)
class ProcessTests(SMTPServerMixin, TransactionTestCase):
    """The command as a process: exit status, and a bar on a real terminal."""

    def command(self, *args: str) -> tuple[list[str], dict[str, str]]:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_EMAIL_PORT": str(self.server.port)}
        return [sys.executable, "-m", "django", "process_mail_queue", *args], environ

    def status(self, *args: str) -> int:
        command, environ = self.command(*args)
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode

    def test_exit_status(self) -> None:
        enqueue("a")
        self.assertEqual(self.status("--fail-on", "requeued", "--json"), 0)
        self.server.stop()
        enqueue("b")
        self.assertEqual(self.status(), 0)
        self.assertEqual(self.status("--fail-on", "requeued"), 1)

    @skipUnless(find_spec("tqdm"), "tqdm is not installed")
    def test_bar_on_a_terminal(self) -> None:
        enqueue("a", "b", "c")
        main, other = pty.openpty()
        fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
        command, environ = self.command()
        process = subprocess.Popen(command, env=environ, stdout=other, stderr=other)
        os.close(other)
        output = b""
        while chunk := _read(main):
            output += chunk
        os.close(main)
        self.assertEqual(process.wait(), 0)
        self.assertIn(b" messages", output.partition(b"3 messages sent")[0])
        self.assertIn(b"3 messages sent and 0 messages discarded out of 3 messages.", output)


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1000)
    except OSError:  # Linux: the other end is closed
        return b""
