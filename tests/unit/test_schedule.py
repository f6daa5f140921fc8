"""The attributes send_at and expires_at of a message, as they are read and stored."""

from __future__ import annotations

import sys
import time
from datetime import date, datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from types import SimpleNamespace
from typing import Any
from unittest import mock

from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.test import SimpleTestCase
from django.utils import timezone as django_timezone

from mailqueue_backend.envelope import META_KEY, Envelope, Meta, dumps, loads
from mailqueue_backend.errors import UnstorableMessage
from mailqueue_backend.mail.enqueue import Serialised, serialise, write
from mailqueue_backend.mail.schedule import Schedule, read_schedule
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import MessageQueue
from tests.cases import message

NOON = datetime(2030, 6, 1, 12, tzinfo=timezone.utc)
CREATED = datetime(2026, 11, 24, 9, 12)


def scheduled(**attributes: Any) -> Any:
    email = message()
    vars(email).update(attributes)
    return email


class Delivers:
    """A relay, as far as read_schedule() looks at it."""

    def __init__(self, **attributes: Any) -> None:
        self.delivers_with = type("Backend", (SMTPBackend,), attributes)


class ReadTests(SimpleTestCase):
    def read(self, **attributes: Any) -> Schedule:
        return read_schedule(Delivers(), scheduled(**attributes))

    def test_each_type_is_converted(self) -> None:
        paris = timezone(timedelta(hours=2))
        with django_timezone.override(paris):
            for value, expected in {
                NOON: NOON,
                NOON.astimezone(paris): NOON,
                datetime(2030, 6, 1, 14): NOON,
                date(2030, 6, 1): datetime(2030, 6, 1, tzinfo=paris),
                NOON.timestamp(): NOON,
                int(NOON.timestamp()): NOON,
            }.items():
                for name in ("send_at", "expires_at"):
                    with self.subTest(value, name=name):
                        self.assertEqual(getattr(self.read(**{name: value}), name), expected.timestamp())

    def test_a_message_without_them_is_not_scheduled(self) -> None:
        self.assertEqual(self.read(), (None, None))
        self.assertEqual(self.read(send_at=None, expires_at=None), (None, None))

    def test_a_wrong_value_is_named(self) -> None:
        for name in ("send_at", "expires_at"):
            for value in ("2030-06-01", True, b"1", timedelta(1)):
                with self.subTest(name, value=value), self.assertRaises(UnstorableMessage) as caught:
                    self.read(**{name: value})
                self.assertIn(f"its {name} is of type {type(value).__name__}: write an aware", str(caught.exception))

    def test_a_value_out_of_range_is_named(self) -> None:
        for value in (float("nan"), float("inf"), -1e11, 10**400, datetime(9999, 1, 1, tzinfo=timezone.utc)):
            with self.subTest(value), self.assertRaisesRegex(UnstorableMessage, "its send_at is out of range"):
                self.read(send_at=value)

    def test_a_message_that_would_never_be_sent_is_refused(self) -> None:
        for expires_at in (NOON, NOON - timedelta(1)):
            with self.subTest(expires_at), self.assertRaisesRegex(UnstorableMessage, "never be sent"):
                self.read(send_at=NOON, expires_at=expires_at)

    def test_a_service_that_supports_send_at_keeps_it(self) -> None:
        email = scheduled(send_at="tomorrow", expires_at=NOON)
        self.assertEqual(read_schedule(Delivers(supports_send_at=True), email), (None, NOON.timestamp()))

    def test_anymails_backends_support_send_at(self) -> None:
        email, delivers = scheduled(send_at=NOON), Delivers()
        module = SimpleNamespace(AnymailBaseBackend=delivers.delivers_with)
        with mock.patch.dict(sys.modules, {"anymail.backends.base": module}):  # type: ignore[dict-item]
            self.assertIsNone(read_schedule(delivers, email).send_at)
            delivers.delivers_with.supports_send_at = False  # type: ignore[attr-defined]
            self.assertEqual(read_schedule(delivers, email).send_at, NOON.timestamp())


class StoreTests(SimpleTestCase):
    def serialise(self, *messages: Any) -> list[Serialised]:
        return serialise(QueuedEmailBackend(), messages, {})

    def test_they_are_stored(self) -> None:
        (stored,) = self.serialise(scheduled(send_at=NOON, expires_at=NOON.timestamp() + 1))
        meta = loads(stored.payload).meta
        self.assertEqual((meta.send_at, meta.expires_at), (NOON.timestamp(), NOON.timestamp() + 1))

    def test_the_error_names_the_message(self) -> None:
        with self.assertRaisesRegex(UnstorableMessage, "^Message 2 of 2 cannot be queued: its send_at is of type str"):
            self.serialise(message(), scheduled(send_at="tomorrow"))

    def test_the_date_is_that_of_sending(self) -> None:
        later, now = self.serialise(scheduled(send_at=NOON), scheduled(send_at=1))
        self.assertEqual(parsedate_to_datetime(later.message.extra_headers["Date"]), NOON)
        date_now = parsedate_to_datetime(now.message.extra_headers["Date"]).timestamp()
        self.assertAlmostEqual(date_now, time.time(), delta=60)

    def test_a_queue_that_cannot_hold_a_message_so_long_refuses_all(self) -> None:
        queue = mock.create_autospec(MessageQueue, instance=True)
        queue.explain_size.return_value = ""
        queue.explain_delay.side_effect = lambda delay: "at most 900 s" if delay > 900 else ""
        soon, later = (Serialised("", None, b"", time.time() + delay) for delay in (600, 1200))
        with self.assertRaisesRegex(UnstorableMessage, "Message 2 of 2 cannot be queued: at most 900 s"):
            write(queue, [soon, later])
        queue.write_many.assert_not_called()
        write(queue, [soon])
        self.assertAlmostEqual(queue.write_many.call_args.kwargs["delays"][0], 600, delta=60)

    def test_a_queue_need_not_know_delays(self) -> None:
        queue = mock.create_autospec(MessageQueue, instance=True)
        queue.explain_size.return_value = ""
        write(queue, [Serialised("", None, b"a", None), Serialised("", None, b"b", time.time() - 1)])
        queue.write_many.assert_called_once_with(b"a", b"b")


class MetaTests(SimpleTestCase):
    def test_the_age_counts_from_the_later_time(self) -> None:
        for send_at, expected in ((None, CREATED.timestamp()), (1.0, CREATED.timestamp()), (4e9, 4e9)):
            with self.subTest(send_at):
                meta = Meta("")
                meta.send_at = send_at
                self.assertEqual(meta.since(CREATED), expected)

    def test_new_fields_survive_a_requeue(self) -> None:
        fields: dict[str, Any] = {META_KEY: {"send_at": 4e9, "expires_at": 5e9, "site": "shop"}}
        Meta.read(fields).write(fields)
        meta = loads(dumps(Envelope(message(), CREATED, fields))).meta
        self.assertEqual((meta.send_at, meta.expires_at, meta.site), (4e9, 5e9, "shop"))

    def test_damaged_fields_are_dropped(self) -> None:
        for value in ("1", float("nan"), 1e12, None, [1]):
            with self.subTest(value):
                meta = Meta.read({META_KEY: {"send_at": value, "expires_at": value, "site": 3}})
                self.assertEqual((meta.send_at, meta.expires_at, meta.site), (None, None, ""))
