"""What a listed message says about itself, whatever its payload is, and how it is printed."""

from __future__ import annotations

import sys
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.envelope import META_KEY, Envelope, dumps, sign
from mailqueue_backend.inspection import text
from mailqueue_backend.inspection.export import render
from mailqueue_backend.inspection.messages import Message, as_iso, open_entry
from mailqueue_backend.queues.base import Entry, MessageQueue
from tests.cases import message

CREATED = datetime(2026, 11, 24, 9, 12)
#: Payloads that 0.1.2 wrote.
PAYLOADS = Path(__file__).parent.parent / "payloads"


class Unspeakable(EmailMessage):
    """A site's message, whose attributes fail."""

    def recipients(self) -> list[str]:
        raise ZeroDivisionError


class Unrenderable(EmailMessage):
    """A site's message that cannot be rendered."""

    def message(self, **kwargs: Any) -> Any:
        raise ZeroDivisionError


class EvilError(Exception):
    """Raised by unpickling Evil."""


class Evil:
    """An object that runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return _raise, ()


def _raise() -> None:
    raise EvilError


def payload(email: Any = None, **meta: Any) -> bytes:
    return dumps(Envelope(email or message(cc=["cc@example.com"]), CREATED, {META_KEY: meta} if meta else {}))


def opened(stored: bytes) -> Message:
    return open_entry(MessageQueue("MAIL_QUEUE"), Entry("key", stored, "due", 1.5, 0))


class MessageTests(SimpleTestCase):
    def test_all_fields_are_shown(self) -> None:
        headers = {"Message-ID": "<1@example.com>"}
        stored = payload(message("Hi", headers=headers), id="0123456789ab", attempts=2, last_error="450 busy")
        self.assertEqual(
            opened(stored).as_json(),
            {
                "id": "0123456789ab",
                "queue": "MAIL_QUEUE",
                "state": "due",
                "created": as_iso(CREATED.timestamp()),
                "due": "1970-01-01T00:00:01Z",
                "attempts": 2,
                "size": len(stored),
                "from": "from@example.com",
                "to": ["to@example.com"],
                "subject": "Hi",
                "message_id": "<1@example.com>",
                "last_error": "450 busy",
            },
        )

    def test_only_recipients_who_still_wait_are_shown(self) -> None:
        self.assertEqual(opened(payload()).recipients, ["to@example.com", "cc@example.com"])
        self.assertEqual(opened(payload(remaining=["cc@example.com"])).recipients, ["cc@example.com"])

    def test_payloads_of_the_old_release_are_opened(self) -> None:
        paths = sorted(PAYLOADS.glob("*/alt_many.pickle"))
        self.assertGreater(len(paths), 1)
        for path in paths:
            with self.subTest(path.parent.name):
                found = opened(path.read_bytes())
                self.assertEqual((found.problem, bool(found.subject), bool(found.recipients)), ("", True, True))

    def test_what_is_no_message_has_the_digits_of_its_digest_and_a_reason(self) -> None:
        for stored in (b"", b"garbage", sign(b"garbage"), b"\x80\x04N.", payload()[:-1]):
            with self.subTest(stored[:9]):
                found = opened(stored)
                self.assertEqual(found.id, sha256(stored).hexdigest()[:12])
                self.assertTrue(found.problem)
                self.assertEqual((found.last_error, found.subject, found.recipients), (found.problem, "", ()))

    def test_nothing_unsigned_is_unpickled(self) -> None:
        stored = payload(message(headers={"X": Evil()}))
        self.assertIn("EvilError", opened(stored).problem)
        self.assertNotIn("EvilError", opened(stored[:-36]).problem)

    def test_a_lost_key_keeps_the_id_that_the_log_shows(self) -> None:
        with override_settings(SECRET_KEY="another one"):
            stored = payload(id="0123456789ab")
        self.assertEqual((opened(stored).id, opened(stored).subject), ("0123456789ab", ""))
        self.assertIn("not signed with SECRET_KEY", opened(stored).last_error)

    def test_an_error_in_a_site_s_message_is_the_message_s_alone(self) -> None:
        self.assertIn("raised ZeroDivisionError", opened(payload(Unspeakable())).problem)

    def test_a_soft_time_limit_is_not_the_message_s_error(self) -> None:
        billiard = ModuleType("billiard.exceptions")
        billiard.SoftTimeLimitExceeded = ZeroDivisionError  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, {billiard.__name__: billiard}):
            for call in (lambda: opened(payload(Unspeakable())), lambda: render(opened(payload(Unrenderable())))):
                self.assertRaises(ZeroDivisionError, call)

    def test_times_outside_the_calendar_are_unknown(self) -> None:
        self.assertEqual([as_iso(1e30), as_iso(-1e11), as_iso(None)], [None] * 3)


class TextTests(SimpleTestCase):
    def test_control_characters_are_escaped(self) -> None:
        found = opened(
            payload(message("a\x1b[2Jb\u2028c", to=["to\x07@example.com"]), last_error="x\ny", id="0123456789ab")
        )
        line = text.line(found)
        self.assertIn(r"from@example.com -> to\x07@example.com: a\x1b[2Jb\u2028c", line)
        self.assertEqual(line.splitlines()[1:], [r"              x\ny"])
        self.assertTrue(all(each.isprintable() for each in text.details(found)))

    def test_details_name_attachments_and_show_the_body(self) -> None:
        email = message()
        email.body = "First\nSecond"
        email.attach("price list.pdf", b"%PDF", "application/pdf")
        lines = list(text.details(opened(payload(email))))
        self.assertIn("attachment: price list.pdf", lines)
        self.assertEqual(lines[-2:], ["First", "Second"])
