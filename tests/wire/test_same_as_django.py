"""What Django can send, the queue delivers: the same message, sent directly and through the queue, arrives alike."""

from __future__ import annotations

import copy
import inspect
import re
from collections import OrderedDict, UserDict
from collections.abc import Callable, Iterator
from types import MappingProxyType
from typing import Any

from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail import message as django_message
from django.core.mail.backends.smtp import EmailBackend
from django.utils.datastructures import CaseInsensitiveMapping

from mailqueue_backend.envelope import loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import MailTestCase, drain, message

# Django < 5.2: attachments and alternatives are plain tuples.
ATTACHMENT: Any = getattr(django_message, "EmailAttachment", None)
ALTERNATIVE: Any = getattr(django_message, "EmailAlternative", None)
# Django >= 6.0: messages are rendered by Python's modern e-mail API.
TAKES_POLICY = "policy" in inspect.signature(EmailMessage.message).parameters
#: Headers without which Django would send new ones each time.
STAMPS = {"Message-ID": "<1@example.com>", "Date": "Thu, 01 Jan 2026 00:00:00 -0000"}


def smtp() -> EmailBackend:
    # Django >= 6.1: without an alias, the backend warns.
    return EmailBackend(alias=None) if hasattr(mail, "mailers") else EmailBackend()


class FourMembers(EmailMultiAlternatives):
    """Has attachments with a content id as the fourth member."""

    def _create_attachment(self, filename: Any, content: Any, mimetype: Any = None, cid: str = "") -> Any:
        part = super()._create_attachment(filename, content, mimetype)  # type: ignore[misc]
        part["Content-ID"] = f"<{cid}>"
        return part

    def _add_attachment(self, msg: Any, filename: Any, content: Any, mimetype: Any, cid: str = "") -> None:
        super()._add_attachment(msg, filename, content, mimetype)
        [*msg.iter_attachments()][-1]["Content-ID"] = f"<{cid}>"


class GuessesLate(EmailMessage):
    """Accepts attachments without a type, which Django itself does not send."""

    def _create_attachment(self, filename: Any, content: Any, mimetype: Any = None) -> Any:
        return super()._create_attachment(filename, content, mimetype or "application/x-late")  # type: ignore[misc]

    def _add_attachment(self, msg: Any, filename: Any, content: Any, mimetype: Any) -> None:
        super()._add_attachment(msg, filename, content, mimetype or "application/x-late")


if ATTACHMENT:

    class OwnAttachment(ATTACHMENT):  # type: ignore[misc]
        note = ""

    class OwnAlternative(ALTERNATIVE):  # type: ignore[misc]
        note = ""


class SlottedAttachment(tuple):  # type: ignore[type-arg]
    __slots__ = ()


class OwnList(list):  # type: ignore[type-arg]
    pass


class ThreeMembers(tuple):  # type: ignore[type-arg]
    """An alternative with a language."""

    content = property(lambda self: self[0])
    mimetype = property(lambda self: self[1])


class ThreeAlternatives(EmailMultiAlternatives):
    """Reads alternatives of three members."""

    def _create_alternatives(self, msg: Any) -> Any:
        return self._with_pairs(super()._create_alternatives, msg)  # type: ignore[misc]

    def _add_bodies(self, msg: Any) -> Any:
        return self._with_pairs(super()._add_bodies, msg)

    def _with_pairs(self, method: Callable[[Any], Any], msg: Any) -> Any:
        stored, self.alternatives = self.alternatives, []
        for content, mimetype, language in stored:
            self.attach_alternative(f"{language}: {content}", mimetype)
        try:
            return method(msg)
        finally:
            self.alternatives = stored


class CaseInsensitive(dict):  # type: ignore[type-arg]
    """Needs its attribute for each item that is set."""

    def __init__(self, items: dict[str, str]) -> None:
        self.names: dict[str, str] = {}
        for name, value in items.items():
            self[name] = value

    def __setitem__(self, name: str, value: str) -> None:
        super().__setitem__(self.names.setdefault(name.lower(), name), value)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(self.names[name.lower()])

    def get(self, name: str, default: Any = None) -> Any:
        return self[name] if name.lower() in self.names else default


class MultiValued(dict):  # type: ignore[type-arg]
    """Has a list of values for each name."""

    def items(self) -> Iterator[tuple[str, str]]:  # type: ignore[override]
        return ((name, value) for name, values in super().items() for value in values)

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name)[0]


class Fixed(dict):  # type: ignore[type-arg]
    """Drops what is added."""

    def __init__(self, items: dict[str, str]) -> None:
        super().__init__({"X-Tag": items["X-Tag"]})

    def __setitem__(self, name: str, value: str) -> None:
        pass


class Stored(UserDict):  # type: ignore[type-arg]
    pass


class Tidy(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.subject = " ".join(self.subject.split())
        return super().message(**kwargs)


class SameAsDjangoTestCase(MailTestCase):
    def arrives(self, original: EmailMessage) -> bytes:
        """Send a message both ways, compare, and return what arrived."""
        smtp().send_messages([original])
        before = dict(vars(original))
        QueuedEmailBackend().send_messages([original])
        self.assertEqual(vars(original), before)
        self.assertEqual(drain().sent, 1)
        direct, queued = self.inbox.received[-2:]
        self.assertEqual(queued[:2], direct[:2])
        direct_content, queued_content = map(_without_boundaries, self.inbox.contents[-2:])
        self.assertEqual(queued_content, direct_content)
        return queued_content


def _without_boundaries(content: bytes) -> bytes:
    return re.sub(rb"={10,}[0-9]+==", b"BOUNDARY", content)


class AttachmentTests(SameAsDjangoTestCase):
    def test_members_of_a_site_s_own(self) -> None:
        original = FourMembers("S", "B", "from@example.com", ["to@example.com"], headers=STAMPS)
        original.attachments = [("a.png", b"\x89", "image/png", "logo")]  # type: ignore[list-item]
        self.assertIn(b"Content-ID: <logo>", self.arrives(original))

    def test_type_that_a_site_s_class_chooses(self) -> None:
        original = GuessesLate("S", "B", "from@example.com", ["to@example.com"], headers=STAMPS)
        original.attachments = [("a.png", b"\x89", None)]  # type: ignore[list-item]
        self.assertIn(b"application/x-late", self.arrives(original))

    def test_class_of_a_site_s_own_stays(self) -> None:
        if not ATTACHMENT:
            self.skipTest("EmailAttachment came with Django 5.2")
        original = EmailMultiAlternatives("S", "B", "from@example.com", ["to@example.com"], headers=STAMPS)
        attachment, alternative = OwnAttachment("a.txt", "é", "text/plain"), OwnAlternative("<p>", "text/html")
        attachment.note = alternative.note = "kept"
        original.attachments, original.alternatives = [attachment], [alternative]
        self.arrives(original)
        QueuedEmailBackend().send_messages([original])
        email = loads(self.queue.read_many(1)[0]).email
        for found, kind in ((email.attachments[0], OwnAttachment), (email.alternatives[0], OwnAlternative)):
            self.assertIs(type(found), kind)
            self.assertEqual(found.note, "kept")

    def test_class_stays_where_the_content_changes(self) -> None:
        if not ATTACHMENT:
            self.skipTest("EmailAttachment came with Django 5.2")
        original = message()
        attachment = OwnAttachment("a.txt", "é".encode(), "text/plain")
        attachment.note = "kept"
        original.attachments = [attachment, SlottedAttachment(("b.txt", b"b", "text/plain"))]
        QueuedEmailBackend().send_messages([original])
        found, slotted = loads(self.queue.read_many(1)[0]).email.attachments
        self.assertEqual((type(found), found.content, found.note), (OwnAttachment, "é", "kept"))
        self.assertEqual((type(slotted), slotted[1]), (SlottedAttachment, "b"))

    def test_attachment_that_is_a_list(self) -> None:
        original = message(headers=STAMPS)
        original.attachments = [["a.zip", b"\x89", "application/zip"], OwnList(["b.zip", b"\x89", "application/zip"])]  # type: ignore[list-item]
        self.arrives(original)
        original.attachments = [OwnList(["b.txt", b"text", "text/plain"])]  # type: ignore[list-item]
        QueuedEmailBackend().send_messages([original])
        self.assertEqual(loads(self.queue.read_many(1)[0]).email.attachments[0][1], "text")

    def test_alternatives_of_three_members(self) -> None:
        original = ThreeAlternatives("S", "B", "from@example.com", ["to@example.com"], headers=STAMPS)
        for kind in (tuple, ThreeMembers):
            with self.subTest(kind=kind):
                original.alternatives = [kind(("<p>", "text/html", "de"))]
                self.assertIn(b"de: <p>", self.arrives(original))

    def test_content_that_is_a_memoryview(self) -> None:
        original = message(headers=STAMPS)
        original.attach("a.bin", memoryview(b"some bytes"), "application/zip")  # type: ignore[arg-type]
        self.assertIn(b"c29tZSBieXRlcw==", self.arrives(original))


class AttachedMessageTests(SameAsDjangoTestCase):
    def attached(self, inner: EmailMessage) -> EmailMessage:
        outer = EmailMessage("Outer", "Body", "from@example.com", ["to@example.com"], headers=STAMPS)
        outer.attach("f.eml", inner, "message/rfc822")  # type: ignore[arg-type]
        return outer

    def with_connection(self) -> EmailMessage:
        original = message("Inner", headers=STAMPS)
        vars(original)["_connection" if "_connection" in vars(original) else "connection"] = smtp()
        return original

    def test_message_with_a_connection(self) -> None:
        inner = self.with_connection()
        before = dict(vars(inner))
        self.assertIn(b"Subject: Inner", self.arrives(self.attached(inner)))
        self.assertEqual(vars(inner), before)

    def test_message_in_an_attached_message(self) -> None:
        self.assertIn(b"Subject: Inner", self.arrives(self.attached(self.attached(self.with_connection()))))

    def test_message_that_is_an_attribute(self) -> None:
        original = message(headers=STAMPS)
        original.answers = self.with_connection()  # type: ignore[attr-defined]
        self.arrives(original)

    def test_no_connection_is_stored(self) -> None:
        inner = message("Inner")
        vars(inner)["_connection" if "_connection" in vars(inner) else "connection"] = PicklableConnection()
        QueuedEmailBackend().send_messages([self.attached(inner)])
        self.assertNotIn(b"kept-secret", self.queue.read_many(1)[0])


class PicklableConnection:
    """A connection that pickle accepts, with its password."""

    def __init__(self) -> None:
        self.password = "kept-secret"


class HeadersTests(SameAsDjangoTestCase):
    def test_headers_of_any_class(self) -> None:
        for headers in (
            CaseInsensitive({"x-tag": "a", "REPLY-TO": "r@example.com", **STAMPS}),
            MultiValued({"X-Tag": ["a", "b"], **{name: [value] for name, value in STAMPS.items()}}),
            OrderedDict({"X-Tag": "a", **STAMPS}),
            Stored({"X-Tag": "a", **STAMPS}),
            MappingProxyType({"X-Tag": "a", **STAMPS}),
            CaseInsensitiveMapping({"x-tag": "a", "REPLY-TO": "r@example.com", **STAMPS}),
        ):
            with self.subTest(kind=type(headers)):
                self.assertIn(b"X-Tag: a".lower(), self.arrives(message(headers=headers)).lower())

    def test_headers_of_an_attached_message(self) -> None:
        inner = message("Inner", headers=MultiValued({"X-Tag": ["a", "b"], **{n: [v] for n, v in STAMPS.items()}}))
        outer = message("Outer", headers=STAMPS)
        outer.attach("f.eml", inner, "message/rfc822")  # type: ignore[arg-type]
        self.assertEqual(self.arrives(outer).count(b"X-Tag"), 2)

    def test_headers_of_a_class_that_cannot_be_pickled(self) -> None:
        class Local(dict):  # type: ignore[type-arg]
            pass

        self.arrives(message(headers=Local(STAMPS)))

    def test_class_that_accepts_no_further_header_stays_without(self) -> None:
        headers = Fixed({"X-Tag": "a"})
        QueuedEmailBackend().send_messages([message(headers=headers)])
        self.assertEqual(loads(self.queue.read_many(1)[0]).email.extra_headers, headers)

    def test_message_id_and_date_are_added(self) -> None:
        for headers in (
            CaseInsensitive({"X-Tag": "a"}),
            MultiValued({"X-Tag": ["a", "b"]}),
            Stored({"X-Tag": "a"}),
            CaseInsensitiveMapping({"X-Tag": "a"}),
        ):
            with self.subTest(kind=type(headers)):
                before = copy.copy(list(headers.items()))
                QueuedEmailBackend().send_messages([message(headers=headers)])
                self.assertEqual(list(headers.items()), before)
                stored = loads(self.queue.read_many(1)[0]).email.extra_headers
                self.assertIs(type(stored), type(headers))
                self.assertEqual([name.lower() for name, _ in stored.items()][len(before) :], ["message-id", "date"])
                self.assertEqual(list(stored.items())[: len(before)], before)

    def test_subject_that_the_message_tidies(self) -> None:
        original = Tidy("Hello\nworld", "B", "from@example.com", ["to@example.com"], headers=STAMPS)
        untouched = copy.copy(original)
        QueuedEmailBackend().send_messages([untouched])
        self.assertEqual(untouched.subject, "Hello\nworld")
        drain()
        self.assertIn(b"Subject: Hello world", self.inbox.contents[-1])
        self.arrives(original)


class CountTests(SameAsDjangoTestCase):
    def test_message_without_recipients_is_not_queued(self) -> None:
        messages = [message(to=[]), message(), message(to=[""])]
        self.assertEqual(QueuedEmailBackend().send_messages(messages), smtp().send_messages(messages))
        self.assertEqual(len(self.queue), 1)

    def test_hook_may_add_recipients(self) -> None:
        class Adding(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                email_message.to = ["added@example.com"]
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        backend = Adding()
        self.assertEqual(backend.send_messages([message(to=[])]), 1)
        self.assertEqual(backend.send_queued_messages(), (1, 0, 1))
        self.assertEqual(self.inbox.received[0][1], ["added@example.com"])
