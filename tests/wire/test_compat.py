"""What 0.1.2 promised of storing, draining, hooks and the discard log: a site that upgrades changes nothing."""

from __future__ import annotations

import logging
import pickle
import re
import smtplib
from datetime import datetime, timedelta
from io import StringIO
from logging.handlers import RotatingFileHandler
from typing import Any
from unittest import mock

from django.core import mail
from django.core.mail.backends.smtp import EmailBackend
from django.core.management import call_command
from django.test import override_settings

from mailqueue_backend.mail import smtp
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import MailTestCase, drain, enqueue, message, process_mail_queue
from tests.smtp import always, by_recipient


class SiteSettingsTests(MailTestCase):
    def test_send_mail_only_stores_the_message(self) -> None:
        mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
        self.assertEqual(len(self.queue), 1)
        self.assertEqual(self.inbox.connections, 0)

    @override_settings(MAIL_QUEUE_NAME="OTHER")
    def test_mail_goes_to_the_queue_that_is_named(self) -> None:
        enqueue("Hello")
        self.assertEqual(len(open_queue("OTHER")), 1)


class CommandTests(MailTestCase):
    def test_the_word_test_changes_nothing(self) -> None:
        enqueue("Hello")
        self.assertEqual(process_mail_queue("test"), "1 message sent and 0 messages discarded out of 1 message.\n")
        self.assertEqual(self.inbox.subjects, ["Hello"])

    def test_keyword_test_changes_nothing(self) -> None:
        enqueue("Hello")
        self.assertEqual(QueuedEmailBackend(test=True).send_queued_messages(), (1, 0, 1))

    def test_summary_counts_in_singular_and_plural(self) -> None:
        for subjects, summary in (
            ([], "0 messages sent and 0 messages discarded out of 0 messages.\n"),
            (["a"], "1 message sent and 0 messages discarded out of 1 message.\n"),
            (["a", "b"], "2 messages sent and 0 messages discarded out of 2 messages.\n"),
        ):
            with self.subTest(length=len(subjects)):
                enqueue(*subjects)
                self.assertEqual(process_mail_queue(), summary)

    def test_summary_goes_to_standard_output(self) -> None:
        with mock.patch("sys.stdout", new_callable=StringIO) as stdout:
            call_command("process_mail_queue")
        self.assertIn("0 messages sent", stdout.getvalue())

    @override_settings(MAIL_QUEUE_EXPIRE=0)
    def test_summary_counts_a_discarded_message(self) -> None:
        enqueue("Hello")
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            self.assertEqual(process_mail_queue(), "0 messages sent and 1 message discarded out of 1 message.\n")


class Hooked(QueuedEmailBackend):
    """Overrides each hook of 0.1.2, as a site of 2015 would."""

    calls: list[str] = []

    def send_messages(self, email_messages: Any, **kwargs: Any) -> int:
        self.calls.append("send_messages")
        return super().send_messages(email_messages, tries=0, **kwargs)

    def _store(self, email_messages: Any, **kwargs: Any) -> None:
        self.calls.append("_store")
        super()._store(email_messages, **kwargs)

    @staticmethod
    def _wrap(email: Any, created: Any = None, **kwargs: Any) -> bytes:
        Hooked.calls.append("_wrap")
        return QueuedEmailBackend._wrap(email, created, **kwargs)

    @staticmethod
    def _make_pickleable(message: Any) -> Any:
        Hooked.calls.append("_make_pickleable")
        return QueuedEmailBackend._make_pickleable(message)

    def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: dict[str, Any]) -> Any:
        self.calls.append(f"_send_queued_messages {email_message_dict['tries']}")
        email_message_dict["tries"] += 1
        return super()._send_queued_messages(email_message, expired, email_message_dict)

    def send_queued_messages(self, expire: Any = None) -> Any:
        self.calls.append("send_queued_messages")
        return super().send_queued_messages(expire)


@override_settings(EMAIL_BACKEND="tests.wire.test_compat.Hooked")
class HookTests(MailTestCase):
    def setUp(self) -> None:
        super().setUp()
        Hooked.calls.clear()

    def test_storing_calls_every_hook(self) -> None:
        mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
        self.assertEqual(Hooked.calls, ["send_messages", "_store", "_make_pickleable", "_wrap"])

    def test_command_drains_with_the_site_s_subclass(self) -> None:
        mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
        Hooked.calls.clear()
        process_mail_queue()
        self.assertEqual(Hooked.calls, ["send_queued_messages", "_send_queued_messages 0"])
        self.assertEqual(self.inbox.subjects, ["Hello"])

    def test_options_of_the_command_reach_an_override_that_takes_no_new_keywords(self) -> None:
        for subject in ("first", "second"):
            mail.send_mail(subject, "Body", "from@example.com", ["to@example.com"])
        printed = process_mail_queue("--limit", "1")
        self.assertEqual(printed, "1 message sent and 0 messages discarded out of 2 messages.\n")
        self.assertIn("send_queued_messages", Hooked.calls)
        self.assertEqual(self.inbox.subjects, ["first"])

    def test_what_the_hook_puts_into_the_dict_survives_a_requeue(self) -> None:
        mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            process_mail_queue()
            process_mail_queue()
        self.assertIn("_send_queued_messages 1", Hooked.calls)

    def test_keywords_of_send_messages_reach_the_hook(self) -> None:
        seen: dict[str, Any] = {}

        class Looking(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                seen.update(email_message_dict)
                return self.SENT

        enqueue("Hello", campaign="spring")
        Looking().send_queued_messages()
        self.assertEqual(seen["campaign"], "spring")
        self.assertIsInstance(seen["created"], datetime)
        self.assertIsNone(seen["created"].tzinfo)

    def test_hook_decides_by_the_published_tuples(self) -> None:
        for outcome, result, left in (
            ((True, None), (1, 0, 1), 0),
            ((False, False), (0, 1, 1), 0),
            ((False, True), (0, 0, 1), 1),
        ):
            with self.subTest(outcome=outcome):
                while self.queue.read():
                    pass
                enqueue("Hello")
                with mock.patch.object(QueuedEmailBackend, "_send_queued_messages", return_value=outcome):
                    self.assertEqual(QueuedEmailBackend().send_queued_messages(), result)
                self.assertEqual(len(self.queue), left)

    def test_result_is_a_tuple_of_three_and_the_report_has_the_rest(self) -> None:
        refusing = self.scripted(by_recipient({"bad@example.com": "451 later"}))
        with refusing, self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            backend = QueuedEmailBackend()
            backend.send_messages([message("a"), message("b", to=["bad@example.com"])])
            result = backend.send_queued_messages()
        self.assertIsInstance(result, tuple)
        self.assertEqual(result, (1, 0, 2))
        self.assertEqual((result.sent, result.discarded, result.length), (1, 0, 2))
        self.assertEqual((backend.report.requeued, backend.report.buried), (1, 0))

    def test_hook_may_send_by_the_class_behind(self) -> None:
        class Direct(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                EmailBackend.send_messages(self, [email_message])
                return self.SENT

        enqueue("a", "b")
        Direct().send_queued_messages()
        self.assertEqual(self.inbox.subjects, ["a", "b"])
        self.assertEqual(self.inbox.connections, 1)

    def test_hook_works_outside_a_drain(self) -> None:
        outcome = QueuedEmailBackend()._send_queued_messages(message(), datetime.now(), {"created": datetime.now()})
        self.assertEqual(outcome, QueuedEmailBackend.SENT)
        self.assertEqual(self.inbox.subjects, ["Hello"])


class PatchedTransportTests(MailTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.stop_server()
        enqueue("Hello")

    def test_patched_backend_sends(self) -> None:
        with mock.patch.object(EmailBackend, "send_messages", autospec=True, return_value=1) as send_messages:
            self.assertEqual(QueuedEmailBackend().send_queued_messages(), (1, 0, 1))
        (sent,) = send_messages.call_args.args[1]
        self.assertEqual(sent.subject, "Hello")

    def test_patched_smtplib_sends(self) -> None:
        with mock.patch.object(smtplib, "SMTP") as server:
            self.assertEqual(QueuedEmailBackend().send_queued_messages(), (1, 0, 1))
        self.assertEqual(server.return_value.sendmail.call_args.args[:2], ("from@example.com", ["to@example.com"]))


class DiscardLogTests(MailTestCase):
    def discard(self, **kwargs: Any) -> None:
        QueuedEmailBackend().send_messages([message(**kwargs)])
        with self.scripted(always("dot", "554 no")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            drain(expire=0)

    def test_logger_has_the_old_handler(self) -> None:
        self.assertIs(smtp.LOGGER, logging.getLogger("smtp.mail_queue"))
        (handler,) = (one for one in smtp.LOGGER.handlers if isinstance(one, RotatingFileHandler))
        self.assertIs(handler, smtp.LFH)
        self.assertEqual(handler.level, logging.WARNING)
        self.assertEqual(smtp.FORMATTER._fmt, "%(asctime)s - %(name)s - %(levelname)s - %(message)s")

    def test_line_has_the_old_form_and_the_error_behind_it(self) -> None:
        self.discard(to=["a@example.com", "b@example.com"])
        (line,) = self.log_lines()
        self.assertRegex(
            line,
            r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} - smtp\.mail_queue - WARNING - Message Expired\. "
            r"Created:\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6}, Subject: Hello, From:from@example\.com, "
            + re.escape("To:a@example.com, b@example.com. Error: 554 no. Id: ")
            + r"[0-9a-f]{12}\. Message-ID: <[^ ]+>$",
        )

    def test_logger_carries_discards_and_nothing_else(self) -> None:
        enqueue("Hello")
        with (
            self.scripted(always("dot", "451 later")),
            self.assertNoLogs("smtp.mail_queue"),
            self.assertLogs("mailqueue_backend", "WARNING"),
        ):
            drain()

    def test_log_is_rotated_as_the_settings_say(self) -> None:
        with override_settings(MAIL_QUEUE_LOG_FILE_MAXBYTES=10, MAIL_QUEUE_LOG_FILE_BACKUP=1):
            for subject in ("one", "two", "three"):
                self.discard(subject=subject)
        self.assertIn("three", self.log.read_text())
        self.assertIn("two", self.log.with_suffix(".log.1").read_text())
        self.assertFalse(self.log.with_suffix(".log.2").exists())


class DrainTests(MailTestCase):
    def test_takes_as_many_as_were_queued_when_it_began(self) -> None:
        class Feeding(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                enqueue("late")
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        enqueue("a", "b")
        self.assertEqual(Feeding().send_queued_messages(), (2, 0, 2))
        self.assertEqual(self.inbox.subjects, ["a", "b"])
        self.assertEqual(len(self.queue), 2)

    def test_failed_message_goes_to_the_tail(self) -> None:
        QueuedEmailBackend().send_messages([message("bad", to=["bad@example.com"]), message("a"), message("b")])
        refusing = self.scripted(by_recipient({"bad@example.com": "451 later"}))
        with refusing as smtp, self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            drain()
        enqueue("c")
        drain()
        self.assertEqual((smtp.subjects, self.inbox.subjects), (["a", "b"], ["bad", "c"]))

    def test_old_message_is_discarded_only_when_it_has_just_failed(self) -> None:
        long_ago = datetime.now() - timedelta(days=30)
        enqueue("old", created=long_ago)
        self.assertEqual(drain().sent, 1)

    def test_failed_message_is_discarded_when_it_is_older_than_the_limit(self) -> None:
        enqueue("old", created=datetime.now() - timedelta(seconds=100))
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            self.assertEqual(QueuedEmailBackend().send_queued_messages(expire=110), (0, 0, 1))
            self.assertEqual(QueuedEmailBackend().send_queued_messages(expire=90), (0, 1, 1))
        self.assertEqual(len(self.queue), 0)

    @override_settings(MAIL_QUEUE_EXPIRE=90)
    def test_limit_comes_from_the_setting(self) -> None:
        enqueue("old", created=datetime.now() - timedelta(seconds=100))
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            self.assertEqual(drain().discarded, 1)

    def test_payload_of_the_old_release_is_delivered(self) -> None:
        self.queue.write(pickle.dumps({"email": message("from 2015"), "created": datetime.now()}))
        self.assertEqual(process_mail_queue(), "1 message sent and 0 messages discarded out of 1 message.\n")
        self.assertEqual(self.inbox.subjects, ["from 2015"])
