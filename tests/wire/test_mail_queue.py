"""manage.py mail_queue: what it prints, what it asks, how it exits."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
import subprocess
import sys
import tempfile
from datetime import timedelta
from io import BytesIO, StringIO, TextIOWrapper
from pathlib import Path
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.management import CommandError, call_command
from django.test import override_settings
from django.utils import timezone

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.history.models import Recipient
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.paused import paused_reason
from tests.cases import BACKEND, QueueTestCase, enqueue, message, process_mail_queue
from tests.smtp import ScriptedServer
from tests.wire.test_events import received

CONSOLE = "django.core.mail.backends.console.EmailBackend"


class Terminal(StringIO):
    """A terminal on which somebody has typed a text."""

    def isatty(self) -> bool:
        return True


class Unrenderable(EmailMessage):
    """A site's message that fails in a drain, too."""

    def message(self, **kwargs: Any) -> Any:
        raise ValueError("no template")


class CommandTestCase(QueueTestCase):
    """Call the command; ``self.stderr`` is what the last call has printed there."""

    def call(self, *arguments: str, **options: Any) -> str:
        stdout, stderr = StringIO(), StringIO()
        try:
            call_command("mail_queue", *arguments, stdout=stdout, stderr=stderr, **options)
        finally:
            self.stdout, self.stderr = stdout.getvalue(), stderr.getvalue()
        return self.stdout

    def objects(self, *arguments: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.call(*arguments, "--json").splitlines()]

    def assertFails(self, error: str, *arguments: str, **options: Any) -> None:
        with self.assertRaisesRegex(CommandError, error):
            self.call(*arguments, **options)

    def settle(self, how: Any, **more: Any) -> None:
        """Settle the first message that is due."""
        with self.queue.consumer(600) as consumer:
            (reservation,) = consumer.exchange(wanted=1).reservations
            consumer.exchange([Settlement(reservation, how, **more)])

    def answer(self, text: str) -> Any:
        """Return a context in which a terminal answers."""
        return mock.patch.multiple(sys, stdin=Terminal(f"{text}\n"), stdout=StringIO())


class LookingTests(CommandTestCase):
    def test_status_is_a_table(self) -> None:
        enqueue("a", "b", "c")
        self.settle("release", delay=600)
        self.settle("bury")
        heading, row = self.call("status").splitlines()
        self.assertEqual(heading.split(), ["QUEUE", "DUE", "DEFERRED", "RESERVED", "DEAD", "OLDEST", "LAST", "ERROR"])
        self.assertEqual(row.split()[:5], ["MAIL_QUEUE", "1", "1", "0", "1"])
        self.assertRegex(row, r"\d seconds?$")

    def test_status_says_where_deliveries_are_paused(self) -> None:
        self.call("pause", "the provider moves")
        self.assertEqual(self.call("status").splitlines()[-1], "MAIL_QUEUE is paused: the provider moves")
        (status,) = self.objects("status")
        self.assertEqual(
            (status["queue"], status["paused"], status["oldest"]), ("MAIL_QUEUE", "the provider moves", None)
        )

    def test_status_warns_of_messages_in_the_future(self) -> None:
        enqueue("a")
        self.settle("release", delay=90_000)
        self.call("status")
        self.assertRegex(self.stderr, "in MAIL_QUEUE is deferred until .* although nothing has delayed it")

    def test_list_shows_one_line_per_message(self) -> None:
        enqueue("Order 1", "Invoice")
        heading, first, _ = self.call("list").splitlines()
        self.assertRegex(heading, "^ID +STATE")
        self.assertRegex(first, r"^[0-9a-f]{12}  due .* 0  .* from@example.com -> to@example.com: Order 1$")

    def test_list_filters_and_prints_json(self) -> None:
        enqueue("Order 1", "Order 2", "Invoice")
        self.settle("bury")
        for arguments, expected in (
            ((), ["Order 2", "Invoice", "Order 1"]),
            (("--subject", "order"), ["Order 2", "Order 1"]),
            (("--subject", "order", "--limit", "1"), ["Order 2"]),
            (("--state", "dead"), ["Order 1"]),
            (("--to", "nobody"), []),
            (("--from", "from@"), ["Order 2", "Invoice", "Order 1"]),
            (("--older-than", "60"), []),
        ):
            with self.subTest(arguments):
                self.assertEqual([each["subject"] for each in self.objects("list", *arguments)], expected)

    def test_show_prints_a_message(self) -> None:
        enqueue("Order 1")
        (found,) = self.objects("list")
        lines = self.call("show", found["id"][:6].upper()).splitlines()
        self.assertIn("subject: Order 1", lines)
        self.assertEqual(lines[-1], "Body")

    def test_ids_must_be_long_enough_and_hexadecimal(self) -> None:
        for wrong in ("123", "xyz1", "0123456789abc"):
            self.assertFails("is no id: write its first 4 to 12 digits", "show", wrong)
        self.assertFails("There is no message 0123 in MAIL_QUEUE", "show", "0123")

    def test_numbers_are_checked(self) -> None:
        self.assertFails("'0' is not a number of 1 or more", "list", "--limit", "0")
        for wrong in ("-1", "soon"):
            self.assertFails("is not a number of seconds", "list", f"--older-than={wrong}")

    def test_a_queue_can_be_named(self) -> None:
        self.queue.sibling("OTHER").write(b"garbage")
        (found,) = self.objects("list", "--queue", "OTHER")
        self.assertEqual((found["queue"], found["to"]), ("OTHER", []))
        self.assertEqual(self.objects("list", "--using", "default"), [])
        self.assertFails("There is no mailer 'other'", "list", "--using", "other")
        self.assertFails("not allowed with argument", "list", "--using", "default", "--queue", "OTHER")

    @skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
    def test_all_queues_of_the_mailers_are_shown_and_each_warning_once(self) -> None:
        mailers = {name: {"BACKEND": BACKEND, "OPTIONS": {"host": "localhost"}} for name in ("default", "news")}
        mailers["news"]["OPTIONS"]["queue"] = "NEWS"
        with override_settings(MAILERS=mailers):
            names = [each["queue"] for each in self.objects("status")]
        self.assertEqual((names, self.stderr.count("journal mode")), (["MAIL_QUEUE", "NEWS"], 1))

    @override_settings(EMAIL_BACKEND=CONSOLE)
    def test_a_site_that_queues_nothing_says_so(self) -> None:
        self.assertFails("No mailer of this site queues.*write --queue NAME", "status")
        self.assertIn("MAIL_QUEUE", self.call("status", "--queue", "MAIL_QUEUE"))


class RawTests(CommandTestCase):
    """The bytes that are shown and exported are those that a drain sends."""

    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name, "mail")

    def export(self) -> list[Path]:
        self.call("export", str(self.directory))
        return sorted(self.directory.iterdir())

    def test_exported_messages_are_what_a_drain_sends(self) -> None:
        email = EmailMultiAlternatives("Bestellung über 1 €", "Grüße\n" * 30, "from@example.com", ["to@example.com"])
        email.attach_alternative("<p>Grüße</p>", "text/html")
        email.attach("big.bin", bytes(range(256)) * 1000, "application/octet-stream")
        email.send()
        (path,) = self.export()
        self.assertRegex(path.name, r"^[0-9a-f]{12}\.eml$")
        raw = self.raw(path.stem)
        with ScriptedServer() as server, override_settings(EMAIL_PORT=server.port):
            process_mail_queue()
        self.assertEqual(_comparable(path.read_bytes()), _comparable(server.stored[0].content))
        self.assertEqual(_comparable(raw), _comparable(path.read_bytes()))

    def raw(self, number: str) -> bytes:
        stdout = TextIOWrapper(BytesIO(), encoding="ascii")
        call_command("mail_queue", "show", number, "--raw", stdout=stdout)
        stdout.flush()
        return stdout.buffer.getvalue()  # type: ignore[attr-defined]

    def test_raw_can_be_captured_as_text(self) -> None:
        message("Grüße").send()
        self.assertIn("Subject: =?utf-8?", self.call("show", self.objects("list")[0]["id"], "--raw"))

    def test_only_the_owner_may_read_what_is_exported(self) -> None:
        enqueue("a")
        (path,) = self.export()
        self.assertEqual([stat.S_IMODE(each.stat().st_mode) for each in (self.directory, path)], [0o700, 0o600])
        self.assertEqual(self.stdout, "1 message exported.\n")

    def test_no_file_is_overwritten(self) -> None:
        enqueue("a")
        (path,) = self.export()
        path.write_text("edited")
        self.assertFails(f"File exists: .*{path.name}", "export", str(self.directory))
        self.assertEqual(path.read_text(), "edited")

    def test_copies_of_a_message_are_exported_each(self) -> None:
        enqueue("a")
        self.queue.write_many(*[self.queue.read() or b""] * 2)
        self.assertEqual([path.stem[12:] for path in self.export()], ["-2", ""])

    def test_what_is_no_message_is_exported_as_it_is(self) -> None:
        self.queue.write(b"garbage")
        (path,) = self.export()
        self.assertEqual((path.suffix, path.read_bytes()), (".pickle", b"garbage"))
        self.assertIn(f"{path.name} is the payload, since it is not a message: ", self.stderr)
        self.assertFails("the payload", "show", path.stem, "--raw")

    def test_a_message_that_cannot_be_rendered_is_exported_as_it_is(self) -> None:
        Unrenderable("a", to=["to@example.com"]).send()
        (path,) = self.export()
        self.assertEqual((path.suffix, path.read_bytes()), (".pickle", self.queue.read()))
        self.assertIn("rendering it raised ValueError: no template", self.stderr)


def _comparable(raw: bytes) -> bytes:
    """Return a message without its boundaries, which are new at each rendering."""
    return re.sub(rb"={15}\d+==", b"boundary", raw).rstrip()


class ActingTests(CommandTestCase):
    def test_retry_makes_deferred_messages_due(self) -> None:
        enqueue("a", "b", "c")
        for _ in range(2):
            self.settle("release", delay=600)
        (number, *_) = (each["id"] for each in self.objects("list", "--state", "deferred"))
        self.assertEqual(self.call("retry", number), "1 message due now.\n")
        self.assertEqual(self.call("retry", "--all", interactive=False), "1 message due now.\n")
        self.assertEqual(self.call("retry", "--all", "--no-input"), "There is nothing to do.\n")
        self.assertEqual(self.queue.counts().due, 3)

    def test_discard_asks_on_a_terminal(self) -> None:
        enqueue("Order 1")
        (found,) = self.objects("list")
        with self.answer("no"):
            self.assertFails("Nothing was changed", "discard", found["id"])
        self.assertRegex(self.stdout, "to@example.com: Order 1\nDiscard 1 message\\?")
        self.assertEqual(len(self.queue), 1)
        with self.answer("yes"):
            self.call("discard", found["id"])
        self.assertIn("1 message discarded.\n", self.stdout)
        self.assertEqual((len(self.queue), len(self.log_lines())), (0, 1))

    def test_the_question_about_all_names_the_counts(self) -> None:
        enqueue("a", "b")
        self.settle("release", delay=600)
        with self.answer("no"):
            self.assertFails("Nothing was changed", "retry", "--all")
        self.assertIn("Retry all messages (1 due in MAIL_QUEUE, 1 deferred in MAIL_QUEUE)?", self.stdout)

    def test_without_a_terminal_nobody_is_asked(self) -> None:
        enqueue("a")
        (found,) = self.objects("list")
        for arguments in (("discard", found["id"]), ("discard", "--all"), ("retry", "--all"), ("revive", "--all")):
            with self.subTest(arguments), mock.patch.object(sys, "stdin", StringIO()):
                self.assertFails(f"To {arguments[0]} without a question, add --no-input", *arguments)
        self.assertEqual(len(self.queue), 1)

    def test_either_ids_or_all_are_needed(self) -> None:
        for arguments in ((), ("0123", "--all")):
            self.assertFails("Write the ids of the messages to retry, or --all", "retry", *arguments)

    def test_skipped_messages_are_reported_and_the_others_are_done(self) -> None:
        enqueue("a")
        self.settle("bury")
        self.queue.sibling("MAIL_QUEUE_DEAD").write(b"garbage")
        self.assertFails("1 message skipped", "revive", "--all", interactive=False)
        self.assertEqual(self.stdout, "1 message revived.\n")
        self.assertRegex(self.stderr, r"^[0-9a-f]{12} is skipped: it cannot be opened \(.*add --trust")

    def test_trusted_messages_are_signed(self) -> None:
        with override_settings(SECRET_KEY="lost"):
            enqueue("a")
        self.settle("bury")
        self.assertEqual(self.call("revive", "--all", "--trust", interactive=False), "1 message revived.\n")
        self.assertEqual([each["subject"] for each in self.objects("list", "--state", "due")], ["a"])

    def test_what_was_done_before_an_error_is_reported(self) -> None:
        enqueue("a")
        self.queue.write(b"garbage")
        with (
            mock.patch.object(logging, "raiseExceptions", False),
            mock.patch("mailqueue_backend.discards.DiscardLogHandler._append", side_effect=[None, OSError("full")]),
        ):
            self.assertFails("The discard log .* cannot be written: full", "discard", "--all", interactive=False)
        self.assertEqual((self.stdout, len(self.queue)), ("1 message discarded.\n", 1))

    def test_pause_and_resume(self) -> None:
        self.assertEqual(self.call("pause", "moving"), "MAIL_QUEUE is paused.\n")
        self.assertEqual(paused_reason(self.queue), "moving")
        self.assertEqual(self.call("resume"), "MAIL_QUEUE is resumed.\n")
        self.assertEqual(self.call("resume"), "MAIL_QUEUE was not paused.\n")

    def test_verbosity_0_prints_nothing(self) -> None:
        for arguments in (("pause",), ("resume",), ("retry", "--all", "--no-input")):
            self.assertEqual(self.call(*arguments, verbosity=0), "")


class SignalTests(CommandTestCase):
    """What the command does with messages is announced, too: the history records it."""

    def test_discard(self) -> None:
        enqueue("a")
        with received("message_discarded", "message_events") as calls:
            self.call("discard", "--all", interactive=False)
        (name, found), (group, events) = calls
        self.assertEqual((name, group), ("message_discarded", "message_events"))
        self.assertEqual(found["refused"], {"to@example.com": "discarded by an operator"})
        self.assertEqual([event.status for event in events["events"]], ["discarded"])

    def test_revive(self) -> None:
        enqueue("a")
        self.settle("bury")
        with received("message_requeued") as calls:
            self.call("revive", "--all", interactive=False)
        ((_, found),) = calls
        self.assertEqual((found["remaining"], found["error"]), (["to@example.com"], "revived by an operator"))


class PruneTests(CommandTestCase):
    def test_old_rows_are_deleted(self) -> None:
        old = timezone.now() - timedelta(days=31)
        times = {"queued": old, "changed": old}
        Recipient.objects.create(address="to@example.com", message_id="<a@example.com>", **times)
        self.assertEqual(self.call("prune"), "1 row deleted.\n")

    @override_settings(INSTALLED_APPS=["mailqueue_backend", "mailqueue_backend.queues.database"])
    def test_history_that_is_not_installed_is_an_error(self) -> None:
        self.assertFails('There is no history: add "mailqueue_backend.history"', "prune")


class MonitoringTests(CommandTestCase):
    def check(self, *arguments: str) -> int | str | None:
        """Return the exit status; ``self.stdout`` is the line."""
        try:
            self.call("check", *arguments)
        except SystemExit as ended:
            return ended.code
        return 0

    def test_check_exits_with_the_status_of_a_nagios_plugin(self) -> None:
        self.assertEqual(self.check(), 0)
        enqueue("a")
        self.assertEqual(self.check("--warn-age", "0"), 1)
        self.assertEqual(self.check("--crit-age", "0"), 2)
        self.settle("bury")
        self.assertEqual((self.check(), self.check("--warn-dead", "2"), self.check("--crit-dead", "1")), (1, 0, 2))
        self.assertRegex(
            self.stdout, r"^MAIL CRITICAL - .* \| MAIL_QUEUE_age=0s;600;3600;0 MAIL_QUEUE_waiting=0;;;0\n$"
        )

    def test_check_is_unknown_when_the_queue_cannot_be_asked(self) -> None:
        with mock.patch.object(type(self.queue), "counts", side_effect=QueueUnavailable("down")):
            self.assertEqual(self.check(), 3)
        self.assertEqual(self.stdout, "MAIL UNKNOWN - down\n")
        with override_settings(EMAIL_BACKEND="missing.Backend"):
            self.assertEqual(self.check(), 3)

    def test_metrics_are_printed_or_written_to_a_file(self) -> None:
        enqueue("a")
        self.assertIn('mailqueue_messages{queue="MAIL_QUEUE",state="due"} 1\n', self.call("metrics"))
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory, "mailqueue.prom")
            self.assertEqual(self.call("metrics", "--output", str(path)), "")
            self.assertEqual(path.read_text(), self.call("metrics"))
        self.assertFails("No such file or directory", "metrics", "--output", "/nonexistent/mailqueue.prom")


@override_settings(QUEUE_BACKEND="dummy")
class PlainTests(CommandTestCase):
    """An engine that can only count."""

    def setUp(self) -> None:
        super().setUp()
        enqueue("a")
        self.addCleanup(self.queue.read_many, 9)

    def test_it_cannot_be_listed_nor_acted_upon(self) -> None:
        for arguments in (("list",), ("show", "0123"), ("retry", "0123"), ("export", "/nonexistent")):
            with self.subTest(arguments):
                self.assertFails("MAIL_QUEUE can only count its messages.*: 1 due, 0 dead", *arguments)

    def test_its_figures_are_shown(self) -> None:
        self.assertEqual(self.call("status").splitlines()[1].split(), ["MAIL_QUEUE", "1", "0", "0", "0", "-"])
        self.assertIn("MAIL_QUEUE_age=U;600;3600;0 MAIL_QUEUE_waiting=1;;;0", self.call("check"))
        self.assertNotIn("mailqueue_oldest_created_timestamp_seconds{", self.call("metrics"))

    def test_it_cannot_be_paused(self) -> None:
        for subcommand in ("pause", "resume"):
            with self.subTest(subcommand), self.assertRaisesMessage(CommandError, "MAIL_QUEUE cannot be paused"):
                self.call(subcommand)


class BaseOptionTests(CommandTestCase):
    """Django's own options, before and behind the subcommand."""

    def test_call_command(self) -> None:
        for arguments in (("-v", "0", "pause"), ("pause", "-v", "0"), ("--verbosity=0", "pause", "--no-color")):
            with self.subTest(arguments):
                self.assertEqual(self.call(*arguments), "")
        self.call("--traceback", "list", "--force-color", "--pythonpath", ".")

    def test_an_option_before_the_subcommand_is_kept(self) -> None:
        with mock.patch("mailqueue_backend.management.commands.mail_queue.Command.handle", return_value=None) as handle:
            self.call("--verbosity", "3", "--no-color", "list")
        options = handle.call_args.kwargs
        self.assertEqual((options["verbosity"], options["no_color"]), (3, True))

    def manage(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        command = [sys.executable, "-W", "ignore", "-m", "django", *arguments]
        return subprocess.run(command, env=environ, capture_output=True, text=True, check=False)

    def test_a_reader_that_has_seen_enough_is_no_error(self) -> None:
        command = f"{sys.executable} -W ignore -m django mail_queue list --queue EMPTY | true"
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        ended = subprocess.run(command, shell=True, env=environ, capture_output=True, text=True, check=False)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))

    def test_settings_from_the_command_line(self) -> None:
        for arguments in (
            ("mail_queue", "--settings", "tests.settings", "show", "12"),
            ("mail_queue", "show", "12", "--settings", "tests.settings"),
            ("mail_queue", "show", "12", "--settings=tests.settings", "--verbosity", "2", "--no-color"),
        ):
            with self.subTest(arguments):
                self.assertIn("'12' is no id", self.manage(*arguments).stderr)
