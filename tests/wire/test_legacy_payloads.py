"""Payloads that 0.1.2 has written under Django 1.4 to 6.1 on Python 2.7 to 3.13, opened and rendered here.

``tests/payloads/<writer>/<kind>.pickle`` are the bytes; the .json beside each is what its writer rendered itself.
TEST_PAYLOADS names another directory of that form.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from email.utils import parseaddr
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

from django.core.mail import EmailMultiAlternatives
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.envelope import loads, sign
from mailqueue_backend.errors import Unreadable
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import Counts
from tests import PAYLOADS
from tests.cases import MailTestCase, drain
from tests.rendered import summary, summary_of

DIRECTORY = Path(os.environ.get("TEST_PAYLOADS", PAYLOADS))

#: Kinds that are set aside unless somebody vouches for them, and why.
SET_ASIDE = {
    "subclass": "its message is of the site's own class",
    "lazy_format": "a lazy format can reach any attribute of any object",
    "mimepart": "email.message.MIMEPart needs some twenty names more",
}
# Django < 6.0: a MIMEPart cannot be attached.
NOT_HERE = {"mimepart"} if hasattr(EmailMultiAlternatives, "mixed_subtype") else set()


class Payload(NamedTuple):
    writer: str
    kind: str
    pickled: bytes
    #: What the writer rendered; None when rendering failed there.
    rendered: dict[str, Any] | None


def payloads() -> Iterator[Payload]:
    for path in sorted(DIRECTORY.glob("*/*.pickle")):
        rendered = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
        known = None if "render_error" in rendered else rendered
        yield Payload(path.parent.name, path.stem, path.read_bytes(), known)


def _without_top_type(rendered: dict[str, Any]) -> None:
    rendered["body"].pop("ctype")


def _without_dispositions(rendered: dict[str, Any]) -> None:
    for part in rendered["body"]["parts"]:
        part.pop("disp", None)


def _without_doubles(rendered: dict[str, Any]) -> None:
    rendered["headers"] = [list(header) for header in dict.fromkeys(map(tuple, rendered["headers"]))]


def _without_attached_message(rendered: dict[str, Any]) -> None:
    for key in ("inner", "parts"):
        rendered["body"]["parts"][1].pop(key)


#: Where one Django renders otherwise than another, whoever queued the message: kind, what is not compared, why.
DJANGO_DIFFERS: dict[str, tuple[Callable[[dict[str, Any]], None], str]] = {
    "mixed_subtype": (_without_top_type, "Django 6.0 dropped the attribute"),
    "attach_noname": (_without_dispositions, "Django 6.0 writes Content-Disposition for attachments without a name"),
    "headers_from_to": (
        _without_doubles,
        "Django 2.2 to 5.1 wrote the To of the headers a second time",
    ),
    "rfc822_str": (_without_attached_message, "Django 1.4 encoded an attached message in base64"),
}


class Tagged(EmailMultiAlternatives):
    """Stands in for the class of the site whose payloads these are."""

    tag = ""

    def message(self, **kwargs: Any) -> Any:
        message = super().message(**kwargs)
        message["X-Tag"] = self.tag
        return message


def site_module() -> Any:
    module = ModuleType("h2app.messages")
    module.TaggedMessage = Tagged  # type: ignore[attr-defined]
    return mock.patch.dict(sys.modules, {"h2app": ModuleType("h2app"), "h2app.messages": module})


class PayloadTests(SimpleTestCase):
    def test_there_are_payloads_of_every_writer(self) -> None:
        found = list(payloads())
        self.assertGreater(len(found), 200)
        self.assertGreaterEqual({payload.kind for payload in found}, {*SET_ASIDE, *DJANGO_DIFFERS})

    def test_renders_as_it_did_where_it_was_written(self) -> None:
        for payload in payloads():
            if payload.kind not in SET_ASIDE:
                with self.subTest(writer=payload.writer, kind=payload.kind):
                    self.compare(payload, payload.pickled)

    def test_renders_the_same_when_somebody_vouches_for_it(self) -> None:
        for payload in payloads():
            if payload.kind not in NOT_HERE and self.may_be_signed(payload):
                with self.subTest(writer=payload.writer, kind=payload.kind), site_module():
                    self.compare(payload, sign(payload.pickled))

    def test_is_set_aside_where_more_than_data_would_be_needed(self) -> None:
        for payload in payloads():
            if payload.kind in SET_ASIDE:
                with self.subTest(writer=payload.writer, kind=payload.kind), site_module():
                    self.assertRaises(Unreadable, loads, payload.pickled)

    def test_site_s_own_class_comes_back_when_somebody_vouches_for_it(self) -> None:
        for payload in payloads():
            if payload.kind == "subclass":
                with self.subTest(writer=payload.writer), site_module():
                    message = loads(sign(payload.pickled)).email
                    self.assertIs(type(message), Tagged)
                    self.assertEqual(message.tag, "t1")

    def test_opens_the_same_way_every_time(self) -> None:
        for payload in payloads():
            if payload.kind not in SET_ASIDE:
                with self.subTest(writer=payload.writer, kind=payload.kind):
                    first, second = loads(payload.pickled), loads(payload.pickled)
                    self.assertEqual(first.email.extra_headers, second.email.extra_headers)

    def may_be_signed(self, payload: Payload) -> bool:
        # Of Python 2, nothing but plain data and messages is read, signed or not.
        return payload.kind != "lazy_format" or not payload.writer.startswith("py2")

    def compare(self, payload: Payload, stored: bytes) -> None:
        rendered = summary(loads(stored).email)
        if payload.rendered is not None:
            self.assertEqual(*comparable(payload.kind, rendered, payload.rendered))


# They were written years ago: none may expire. One worker keeps their order.
@override_settings(MAIL_QUEUE_EXPIRE=10**10, MAIL_QUEUE_WORKERS=1)
class DeliveryTests(MailTestCase):
    def test_each_arrives_as_its_writer_rendered_it_or_is_set_aside(self) -> None:
        aside = [payload.pickled for payload in payloads() if payload.kind in SET_ASIDE]
        arriving = [payload for payload in payloads() if payload.kind not in SET_ASIDE]
        self.queue.write_many(*(payload.pickled for payload in payloads()))
        with self.assertLogs("mailqueue_backend.delivery", "ERROR") as logs:
            drain()
        self.assertEqual(len(logs.records), len(aside))
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=0, dead=len(aside)))
        self.assertEqual(open_queue("MAIL_QUEUE_DEAD").read_many(len(aside)), aside)
        self.assertEqual(len(self.inbox.contents), len(arriving))
        for payload, content, (_, recipients, _) in zip(
            arriving, self.inbox.contents, self.inbox.received, strict=True
        ):
            with self.subTest(writer=payload.writer, kind=payload.kind):
                arrived, expected = summary_of(content, recipients), payload.rendered
                if expected is not None:
                    expected["recipients"] = [as_sent(recipient) for recipient in expected["recipients"]]
                    self.assertEqual(*comparable(payload.kind, arrived, expected))


def as_sent(recipient: str) -> str:
    """Return an address as RCPT has it: without a name, its domain in ASCII."""
    local, at, domain = parseaddr(recipient)[1].rpartition("@")
    return local + at + domain.encode("idna").decode()


def comparable(kind: str, *summaries: dict[str, Any]) -> tuple[dict[str, Any], ...]:
    """Return the summaries without what Django itself has changed."""
    if kind in DJANGO_DIFFERS:
        for each in summaries:
            DJANGO_DIFFERS[kind][0](each)
    return summaries
