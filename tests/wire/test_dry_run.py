"""process_mail_queue --dry-run: what is queued is opened and rendered, and nothing is reserved or sent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from datetime import datetime
from io import StringIO
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.mail import EmailMessage
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase, override_settings

from mailqueue_backend.envelope import Envelope, Meta, dumps
from mailqueue_backend.mail import rehearsal
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.database.models import QueuedMessage
from tests.cases import BACKEND, MailTestCase, QueueTestCase, drain, enqueue, message
from tests.smtp.cases import DELIVERY

NOTHING_SENT = "1 message can be delivered.\n"


class Removed(EmailMessage):
    """A site's class, which the next release will not have."""


class Unrenderable(EmailMessage):
    """A site's class with a bug."""

    def message(self, **kwargs: Any) -> Any:
        raise KeyError("template")


class Signing(QueuedEmailBackend):
    """A site's backend that mends the addresses itself."""

    def _send(self, email_message: Any) -> bool:
        return True


def store(email: Any, **meta: Any) -> None:
    """Queue a message without the checks of send()."""
    fields: dict[str, Any] = {}
    record = Meta("0123456789ab")
    for name, value in meta.items():
        setattr(record, name, value)
    record.write(fields)
    QueuedEmailBackend().que.write(dumps(Envelope(email, datetime.now(), fields)))


class DryRunTestCase(QueueTestCase):
    def rehearse(self, *args: str) -> str:
        self.stdout, self.stderr = StringIO(), StringIO()
        call_command("process_mail_queue", "--dry-run", *args, stdout=self.stdout, stderr=self.stderr)
        return self.stdout.getvalue()

    def assertCannotBeDelivered(self, reason: str) -> None:
        with self.assertRaisesMessage(CommandError, "1 message of 1 could not be delivered by this code."):
            self.rehearse()
        self.assertRegex(self.stdout.getvalue(), rf"^[0-9a-f]{{12}}: .*{reason}.*\n$")


class ProblemTests(DryRunTestCase):
    def test_class_that_was_removed(self) -> None:
        QueuedEmailBackend().send_messages([Removed("a", "", "a@example.com", ["b@example.com"])])
        self.assertEqual(self.rehearse(), NOTHING_SENT)
        removed = globals().pop("Removed")
        try:
            self.assertCannotBeDelivered(r"test_dry_run\.Removed cannot be imported")
        finally:
            globals()["Removed"] = removed

    def test_key_that_was_lost(self) -> None:
        enqueue("a")
        with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[]):
            self.assertCannotBeDelivered("was not signed with SECRET_KEY")

    def test_rendering_that_fails(self) -> None:
        store(Unrenderable("a", "", "a@example.com", ["b@example.com"]))
        self.assertCannotBeDelivered("KeyError: 'template'")

    def test_address_that_cannot_be_sent(self) -> None:
        store(message("a", ["b@example.com", "two words@@example.com"]))
        self.assertCannotBeDelivered("two words")

    @override_settings(EMAIL_BACKEND="tests.wire.test_dry_run.Signing")
    def test_addresses_that_the_site_sends_itself_are_not_judged(self) -> None:
        store(message("a", ["b@example.com", "two words@@example.com"]))
        self.assertEqual(self.rehearse(), NOTHING_SENT)

    def test_recipients_that_are_left_decide(self) -> None:
        store(message("a", ["two words@@example.com"]), remaining=["b@example.com"])
        self.assertEqual(self.rehearse(), NOTHING_SENT)

    def test_nobody_to_send_it_to(self) -> None:
        store(message("a", []))
        self.assertCannotBeDelivered("nobody to send it to")

    def test_mailer_that_is_gone(self) -> None:
        store(message("a"), using="newsletter")
        self.assertCannotBeDelivered("'newsletter', by which it was sent, is not a mailer that queues its mail")

    def test_message_whose_drains_died_is_not_opened(self) -> None:
        enqueue("a")
        QueuedMessage.objects.update(deliveries=3)
        with mock.patch.object(rehearsal, "loads", side_effect=AssertionError("opened")):
            self.assertCannotBeDelivered("reserved by 3 processes that died")


class RehearsalTests(MailTestCase):
    def test_nothing_is_sent_or_changed(self) -> None:
        enqueue(*map(str, range(25)))
        before = list(QueuedMessage.objects.values_list().order_by("pk"))
        stdout = StringIO()
        call_command("process_mail_queue", "--dry-run", stdout=stdout)
        self.assertEqual(stdout.getvalue(), "25 messages can be delivered.\n")
        self.assertEqual(list(QueuedMessage.objects.values_list().order_by("pk")), before)
        self.assertEqual(self.inbox.connections, 0)


class ScopeTests(DryRunTestCase):
    def test_deferred_messages_are_tried(self) -> None:
        enqueue("a")
        with self.queue.consumer(60) as consumer:
            (reservation,) = consumer.exchange(wanted=1).reservations
            consumer.exchange([Settlement(reservation, "release", delay=3600)])
        self.assertEqual(self.rehearse(), NOTHING_SENT)

    def test_dead_messages_are_not(self) -> None:
        self.queue.write(b"rubbish")
        with self.assertLogs(DELIVERY, "ERROR"):
            drain()
        self.assertEqual(self.rehearse(), "0 messages can be delivered.\n")

    def test_every_problem_is_listed_with_its_id(self) -> None:
        enqueue("fine")
        store(Unrenderable("a", "", "a@example.com", ["b@example.com"]))
        self.queue.write(b"rubbish")
        with self.assertRaisesMessage(CommandError, "2 messages of 3 could not be delivered by this code."):
            self.rehearse()
        first, second = self.stdout.getvalue().splitlines()
        self.assertTrue(first.startswith("0123456789ab: KeyError"))
        self.assertIn("damaged", second)

    def test_json(self) -> None:
        enqueue("fine")
        store(Unrenderable("a", "", "a@example.com", ["b@example.com"]))
        with self.assertRaises(CommandError):
            self.rehearse("--json")
        problem = {"queue": "MAIL_QUEUE", "id": "0123456789ab", "problem": "KeyError: 'template'"}
        self.assertEqual(json.loads(self.stdout.getvalue()), {"fine": 1, "problems": [problem]})

    def test_quiet(self) -> None:
        enqueue("a")
        self.assertEqual(self.rehearse("--verbosity", "0"), "")

    @override_settings(QUEUE_BACKEND="dummy")
    def test_queue_that_cannot_be_listed_is_an_error(self) -> None:
        with self.assertRaisesMessage(CommandError, "The queue MAIL_QUEUE cannot list its messages"):
            self.rehearse()

    @override_settings(EMAIL_BACKEND="django.core.mail.backends.console.EmailBackend")
    def test_site_without_a_queue_says_so(self) -> None:
        self.assertEqual(self.rehearse(), "0 messages can be delivered.\n")
        self.assertIn("No mailer of this site", self.stderr.getvalue())

    def test_does_not_work_in_a_loop(self) -> None:
        with self.assertRaisesMessage(CommandError, "--dry-run does not work with --loop"):
            self.rehearse("--loop")

    @override_settings(
        EMAIL_BACKEND="mailqueue_backend.mail.relay.QueuedEmailBackend",
        MAIL_QUEUE_DELIVERY_BACKEND="django.core.mail.backends.dummy.EmailBackend",
    )
    def test_messages_of_a_relay_are_rendered(self) -> None:
        store(Unrenderable("a", "", "a@example.com", ["b@example.com"]))
        self.assertCannotBeDelivered("KeyError: 'template'")

    def test_objects_that_only_the_site_can_send_are_fine(self) -> None:
        store({"to": "b@example.com"})
        self.assertEqual(self.rehearse(), NOTHING_SENT)

    @skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
    def test_using_tries_one_queue(self) -> None:
        mailers = {
            "default": {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1"}},
            "bulk": {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "queue": "BULK"}},
        }
        with override_settings(MAILERS=mailers):
            mail.send_mail("a", "Body", "a@example.com", ["b@example.com"])
            self.assertEqual(self.rehearse("--using", "bulk"), "0 messages can be delivered.\n")
            self.assertEqual(self.rehearse(), NOTHING_SENT)


@override_settings(EMAIL_BACKEND=BACKEND)
class ExitStatusTests(TransactionTestCase):
    def status(self, *args: str) -> int:
        environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
        command = [sys.executable, "-m", "django", "process_mail_queue", "--dry-run", *args]
        return subprocess.run(command, env=environ, capture_output=True, check=False).returncode

    def test_is_1_if_anything_could_not_be_delivered(self) -> None:
        enqueue("a")
        self.assertEqual(self.status(), 0)
        QueuedEmailBackend().que.write(b"rubbish")
        self.assertEqual(self.status(), 1)
