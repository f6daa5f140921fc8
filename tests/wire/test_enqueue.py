"""Storing: what send_messages() does to the caller, to the messages and to the queue."""

from __future__ import annotations

import socket
import threading
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from typing import Any
from unittest import mock

from django.core import mail
from django.core.mail import EmailMultiAlternatives
from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase, override_settings
from django.utils import translation
from django.utils.translation import gettext_lazy

from mailqueue_backend.envelope import Envelope, loads
from mailqueue_backend.errors import QueueUnavailable, UnstorableMessage
from mailqueue_backend.mail.base import QueueingMixin
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.database.queue import Queue
from tests.cases import BACKEND, MailTestCase, drain, enqueue, message
from tests.smtp import always


def stored() -> Envelope:
    payload = open_queue("MAIL_QUEUE").read()
    assert payload is not None
    return loads(payload)


class SendMessagesTests(TestCase):
    def test_takes_any_iterable_and_returns_the_count(self) -> None:
        messages = [message(), message()]
        for what, iterable in (
            ("list", messages),
            ("tuple", tuple(messages)),
            ("generator", (one for one in messages)),
            ("dict view", dict(enumerate(messages)).values()),
        ):
            with self.subTest(what):
                self.assertEqual(QueuedEmailBackend().send_messages(iterable), 2)
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 8)

    def test_nothing_to_send_is_nothing_queued(self) -> None:
        for nothing in ([], (), None, iter(())):
            with self.subTest(nothing=nothing):
                self.assertEqual(QueuedEmailBackend().send_messages(nothing), 0)  # type: ignore[arg-type]
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)

    def test_batch_is_one_write(self) -> None:
        backend = QueuedEmailBackend()
        with mock.patch.object(type(backend.que), "write_many", autospec=True) as write_many:
            backend.send_messages([message(), message(), message()])
        self.assertEqual([len(call.args) for call in write_many.call_args_list], [4])

    def test_never_connects(self) -> None:
        with mock.patch.object(socket.socket, "connect", side_effect=ConnectionRefusedError) as connect:
            with QueuedEmailBackend() as backend:
                backend.send_messages([message()])
            backend.open()
            backend.close()
        connect.assert_not_called()

    def test_keywords_are_stored(self) -> None:
        QueuedEmailBackend().send_messages([message()], campaign="spring")
        self.assertEqual(stored().extra["campaign"], "spring")

    def test_created_can_be_given(self) -> None:
        created = datetime(2020, 1, 1)
        QueuedEmailBackend().send_messages([message()], created=created)
        envelope = stored()
        self.assertEqual(envelope.created, created)
        self.assertEqual(envelope.extra["mailqueue"]["created_epoch"], created.timestamp())

    def test_created_with_a_time_zone_keeps_its_moment(self) -> None:
        created = datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=9)))
        QueuedEmailBackend().send_messages([message()], created=created)
        envelope = stored()
        self.assertIsNone(envelope.created.tzinfo)
        self.assertEqual(envelope.extra["mailqueue"]["created"], envelope.created)
        self.assertEqual(envelope.meta.epoch(envelope.created), created.timestamp())


class CallersMessageTests(TestCase):
    def test_message_and_headers_stay_as_they_were(self) -> None:
        headers = {"X-Campaign": "spring"}
        original = message(headers=headers, reply_to=["reply@example.com"])
        before = dict(vars(original))
        QueuedEmailBackend().send_messages([original])
        self.assertEqual(headers, {"X-Campaign": "spring"})
        self.assertEqual(vars(original), before)

    def test_connection_of_a_message_is_not_stored(self) -> None:
        backend = QueuedEmailBackend()
        original = message()
        name = "_connection" if "_connection" in vars(original) else "connection"
        vars(original)[name] = backend
        backend.send_messages([original])
        self.assertIs(vars(original)[name], backend)
        self.assertIsNone(vars(stored().email)[name])

    def test_lazy_text_becomes_text_in_the_sender_s_language(self) -> None:
        original = EmailMultiAlternatives(
            gettext_lazy("Monday"), gettext_lazy("April"), "from@example.com", ["to@example.com"]
        )
        original.extra_headers["X-Day"] = gettext_lazy("Monday")
        original.attach_alternative(gettext_lazy("May"), "text/html")
        with translation.override("de"):
            QueuedEmailBackend().send_messages([original])
        with translation.override("fr"):
            email = stored().email
            self.assertEqual((email.subject, email.body), ("Montag", "April"))
            self.assertEqual(email.extra_headers["X-Day"], "Montag")
            self.assertEqual(email.alternatives[0][0], "Mai")
        self.assertIs(type(email.subject), str)


class StampTests(MailTestCase):
    def test_message_id_and_date_are_the_same_in_all_tries(self) -> None:
        enqueue("Hello")
        first = stored().email.extra_headers
        QueuedEmailBackend().que.write(QueuedEmailBackend._wrap(message(headers=dict(first))))
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery", "WARNING"):
            drain()
        drain()
        (sent,) = self.inbox.messages
        self.assertEqual(sent["Message-ID"], first["Message-ID"])
        self.assertEqual(parsedate_to_datetime(sent["Date"]), parsedate_to_datetime(first["Date"]))

    def test_headers_of_the_caller_win_whatever_their_case(self) -> None:
        headers = {"message-id": "<mine@example.com>", "DATE": "Mon, 01 Jan 2024 00:00:00 +0000"}
        QueuedEmailBackend().send_messages([message(headers=headers)])
        self.assertEqual(stored().email.extra_headers, headers)

    def test_date_is_in_local_time_where_the_site_says_so(self) -> None:
        for local, offset in ((True, 7200), (False, 0)):
            with self.subTest(local=local), override_settings(EMAIL_USE_LOCALTIME=local), translation.override(None):
                with override_settings(TIME_ZONE="Africa/Maputo"):
                    QueuedEmailBackend().send_messages([message()])
                date = parsedate_to_datetime(stored().email.extra_headers["Date"])
                self.assertEqual((date.utcoffset() or date - date).total_seconds(), offset)


class RefusedMessageTests(TestCase):
    def test_newline_in_a_header_is_refused_with_django_s_own_error(self) -> None:
        for what, changes in (
            ("subject", {"subject": "a\nb"}),
            ("lazy subject", {"subject": gettext_lazy("a\r\nb")}),
            ("from", {"from_email": "a@example.com\nBcc: b@example.com"}),
            ("to", {"to": ["a@example.com\nBcc: b@example.com"]}),
            ("cc", {"cc": ["a@example.com\nBcc: b@example.com"]}),
            ("bcc", {"bcc": ["a@example.com\nBcc: b@example.com"]}),
            ("reply_to", {"reply_to": ["a@example.com\nBcc: b@example.com"]}),
            ("header", {"extra_headers": {"X-Test": "a\nb"}}),
        ):
            with self.subTest(what):
                broken = message()
                vars(broken).update(changes)
                with self.assertRaises(ValueError):
                    QueuedEmailBackend(fail_silently=True).send_messages([message(), broken])
                self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)

    def test_message_that_cannot_be_pickled_is_named_and_nothing_is_stored(self) -> None:
        broken = message("Broken")
        broken.extra = threading.Lock()  # type: ignore[attr-defined]
        with self.assertRaisesMessage(UnstorableMessage, "Message 2 of 3 cannot be queued") as caught:
            QueuedEmailBackend(fail_silently=True).send_messages([message(), broken, message()])
        self.assertIn("lock", str(caught.exception))
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)

    def test_message_that_is_too_large_is_named_and_nothing_is_stored(self) -> None:
        large = message("Large", attachments=[("a.bin", b"a" * 500_000, "application/octet-stream")])
        with (
            mock.patch.object(Queue, "largest_payload", 500_000),
            self.assertRaisesMessage(UnstorableMessage, "Message 2 of 3 cannot be queued: it takes "),
        ):
            QueuedEmailBackend(fail_silently=True).send_messages([message(), large, message()])
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)

    def test_attribute_that_cannot_be_pickled_is_named(self) -> None:
        lock = threading.Lock()
        for culprit, attributes in (
            ("message.request", {"request": lock}),
            ("message.subject", {"subject": lock}),
            ("message.attachments[1]", {"attachments": [("a", "b", "text/plain"), ("a", lock, "application/zip")]}),
            ("message.extra_headers['X-Lock']", {"extra_headers": {"X-Test": "x", "X-Lock": lock}}),
            ("message.metadata['lock']", {"metadata": {"a": 1, "lock": lock}}),
        ):
            with self.subTest(culprit):
                broken = message()
                vars(broken).update(attributes)
                with self.assertRaisesMessage(UnstorableMessage, f"since {culprit} cannot be pickled: "):
                    QueuedEmailBackend().send_messages([broken])
        with self.assertRaisesMessage(UnstorableMessage, "since kwargs['callback'] cannot be pickled: "):
            QueuedEmailBackend().send_messages([message()], campaign="spring", callback=lambda: None)

    def test_connection_is_not_named(self) -> None:
        broken = message()
        vars(broken).update(connection=QueuedEmailBackend(), request=threading.Lock())
        with self.assertRaisesMessage(UnstorableMessage, "since message.request cannot be pickled"):
            QueuedEmailBackend().send_messages([broken])

    def test_hook_that_raises_is_no_attribute_s_fault(self) -> None:
        class Raising(QueuedEmailBackend):
            @staticmethod
            def _wrap(email: Any, created: Any = None, **kwargs: Any) -> bytes:
                raise TypeError("of the hook")

        with self.assertRaisesMessage(UnstorableMessage, "since it cannot be pickled: of the hook"):
            Raising().send_messages([message()])


class Down:
    """A queue-front queue whose server does not answer."""

    name = "DOWN"

    def write(self, payload: bytes) -> bool:
        raise ConnectionRefusedError("no answer")

    def read(self) -> Any:
        raise ConnectionRefusedError("no answer")

    def __len__(self) -> int:
        raise ConnectionRefusedError("no answer")


@override_settings(QUEUE_BACKEND="dummy")
class QueueDownTests(TestCase):
    def backend(self, **kwargs: Any) -> QueuedEmailBackend:
        backend = QueuedEmailBackend(**kwargs)
        backend.que = Down()
        return backend

    def test_raises(self) -> None:
        with self.assertRaisesMessage(QueueUnavailable, "no answer"):
            self.backend().send_messages([message()])

    def test_returns_0_when_it_shall_fail_silently(self) -> None:
        with self.assertLogs("mailqueue_backend.storing", "WARNING") as logged:
            self.assertEqual(self.backend(fail_silently=True).send_messages([message()]), 0)
        self.assertIn("no answer", logged.output[0])


@override_settings(EMAIL_BACKEND=BACKEND)
class TransactionTests(TransactionTestCase):
    def send(self) -> None:
        mail.send_mail("Hello", "Body", "from@example.com", ["to@example.com"])

    def test_mail_is_queued_when_the_transaction_commits(self) -> None:
        with transaction.atomic():
            self.send()
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 1)

    def test_mail_is_not_queued_when_the_transaction_is_rolled_back(self) -> None:
        with self.assertRaises(ZeroDivisionError), transaction.atomic():
            self.send()
            raise ZeroDivisionError
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)

    def test_failed_write_does_not_spoil_the_caller_s_transaction(self) -> None:
        with transaction.atomic():
            with connection.execute_wrapper(_refuse_insert), self.assertRaises(QueueUnavailable):
                self.send()
            self.send()
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 1)


def _refuse_insert(execute: Any, sql: str, params: Any, many: bool, context: Any) -> Any:
    """Make the database itself refuse, as it does when a table is missing."""
    return execute(sql.replace("INTO", "INTO missing_", 1) if sql.startswith("INSERT") else sql, params, many, context)


class MixinTests(TestCase):
    def test_mixin_queues_for_any_backend(self) -> None:
        from django.core.mail.backends.dummy import EmailBackend

        class Queued(QueueingMixin, EmailBackend):
            pass

        backend = Queued()
        self.assertEqual(backend.send_messages([message("Hello")]), 1)
        self.assertNotIn("Message-ID", loads(backend.que.read_many(1)[0]).email.extra_headers)
        backend.send_messages([message("Hello")])
        self.assertEqual(backend.send_queued_messages(), (1, 0, 1))
