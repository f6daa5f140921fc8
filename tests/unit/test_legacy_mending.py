"""Messages pickled under one Django and sent under another: each difference, from payloads written under the former.

Each payload is opened unsigned, as 0.1.2 wrote it, and signed, so that pickle itself restores the message.
"""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from datetime import datetime
from email.charset import Charset
from email.header import Header
from email.mime.text import MIMEText
from email.policy import compat32
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail import message as django_message
from django.test import SimpleTestCase

from mailqueue_backend.envelope import Envelope, dumps, loads, sign
from tests import PAYLOADS
from tests.rendered import as_bytes, summary

ATTACHMENT = getattr(django_message, "EmailAttachment", tuple)
ALTERNATIVE = getattr(django_message, "EmailAlternative", tuple)
# Django < 6.0: MIME parts, Charset and Header objects are rendered without conversion.
RENDERS_OLD_WAY = hasattr(EmailMessage, "mixed_subtype")


def opened(kind: str, *writers: str) -> Iterator[tuple[str, Any]]:
    """Open the payload of each writer, unsigned and signed; yield a label and the message."""
    for writer in writers:
        pickled = (PAYLOADS / writer / f"{kind}.pickle").read_bytes()
        yield writer, loads(pickled).email
        yield f"{writer}, signed", loads(sign(pickled)).email


def stored(message: EmailMessage, **attributes: Any) -> EmailMessage:
    """Set these attributes; return the message as it is restored from its payload."""
    vars(message).update(attributes)
    message_back: EmailMessage = loads(dumps(Envelope(message, datetime.now()))).email
    return message_back


class UpgradeTests(SimpleTestCase):
    def test_alternatives_and_attachments_have_the_types_of_this_django(self) -> None:
        for writer, message in opened("alternatives", "py2.7-dj1.7", "py3.6-dj1.11", "py3.11-dj4.2", "py3.11-dj5.2"):
            with self.subTest(writer=writer):
                self.assertEqual([type(each) for each in message.alternatives], [ALTERNATIVE])
                self.assertIn(b"<p>HTML</p>", as_bytes(message))
        for writer, message in opened("attach_ctor", "py2.7-dj1.7", "py3.11-dj4.2", "py3.11-dj5.2", "py3.13-dj6.1"):
            with self.subTest(writer=writer):
                self.assertEqual({type(each) for each in message.attachments}, {ATTACHMENT})

    def test_attachment_without_a_type_gets_one(self) -> None:
        for writer, message in opened("attach_append", "py2.7-dj1.4", "py3.11-dj4.2", "py3.13-dj6.1"):
            with self.subTest(writer=writer):
                parts = summary(message)["body"]["parts"]
                self.assertEqual([part["ctype"] for part in parts], ["text/plain", "image/png", "text/plain"])
                self.assertEqual((parts[1]["len"], parts[2]["text"]), (19, "text"))

    def test_bytes_attached_as_text_are_decoded_or_attached_as_binary(self) -> None:
        for attachment, expected in (
            (("a.txt", "é".encode(), "text/plain"), ("a.txt", "é", "text/plain")),
            (("a.csv", "é".encode(), None), ("a.csv", "é", "text/csv")),
            (("a.txt", b"\xff", "text/plain"), ("a.txt", b"\xff", "application/octet-stream")),
            (("a.png", b"\xff"), ("a.png", b"\xff", "image/png")),
            ([None, b"\xff", None], (None, b"\xff", "application/octet-stream")),
            (("a.txt", "é", "text/plain"), ("a.txt", "é", "text/plain")),
        ):
            with self.subTest(attachment=attachment):
                message = stored(EmailMessage(), attachments=[attachment])
                self.assertEqual([tuple(each) for each in message.attachments], [expected])

    def test_alternative_of_bytes_is_decoded(self) -> None:
        message = stored(EmailMultiAlternatives(body="b", to=["b@example.com"]), alternatives=[(b"<p>", "text/html")])
        self.assertEqual(summary(message)["body"]["parts"][1], {"ctype": "text/html", "text": "<p>"})

    def test_lists_that_an_old_django_did_not_have_are_empty(self) -> None:
        for writer, message in opened("plain", "py2.7-dj1.4", "py2.7-dj1.7"):
            with self.subTest(writer=writer):
                self.assertEqual((message.reply_to, message.cc, message.bcc), ([], [], []))
        for name in ("cc", "bcc", "reply_to", "attachments", "extra_headers"):
            with self.subTest(name=name):
                message = EmailMessage("S", "B", "a@example.com", ["b@example.com"])
                del vars(message)[name]
                self.assertFalse({**vars(stored(message)), "extra_headers": {}}[name])

    def test_connection_has_the_attribute_of_this_django(self) -> None:
        here = vars(EmailMessage()).keys() & {"connection", "_connection"}
        for writer, message in opened("plain", "py2.7-dj1.4", "py3.6-dj1.11", "py3.11-dj5.2", "py3.13-dj6.1"):
            with self.subTest(writer=writer):
                self.assertEqual(vars(message).keys() & {"connection", "_connection"}, here)
                self.assertEqual([vars(message)[name] for name in here], [None])

    def test_functions_and_classes_that_django_removed_are_resolved(self) -> None:
        for kind, writers, body in (
            ("lazy_ugettext", ("py2.7-dj1.4", "py2.7-dj1.7", "py3.6-dj1.11"), "Hello world"),
            ("lazy_ngettext", ("py2.7-dj1.4", "py2.7-dj1.7", "py3.6-dj1.11"), "many"),
            ("rendered", ("py2.7-dj1.4", "py2.7-dj1.7", "py3.6-dj1.11"), "Safe body é"),
            ("safebytes", ("py2.7-dj1.4", "py2.7-dj1.7"), "Safe body"),
        ):
            for writer, message in opened(kind, *writers):
                with self.subTest(kind=kind, writer=writer):
                    self.assertIn(body, str(message.body) + str(message.subject))

    def test_encoding_that_is_a_charset_is_rendered(self) -> None:
        for writer, message in opened(
            "encoding_charset", "py2.7-dj1.4", "py3.6-dj1.11", "py3.11-dj5.2", "py3.13-dj6.1"
        ):
            with self.subTest(writer=writer):
                self.assertIs(type(message.encoding), Charset if RENDERS_OLD_WAY else str)
                self.assertEqual(summary(message)["body"]["text"], "café")

    def test_subtypes_that_django_refuses_are_dropped(self) -> None:
        for writer, message in opened("mixed_subtype", "py2.7-dj1.4", "py3.11-dj5.2", "py3.13-dj6.1"):
            with self.subTest(writer=writer):
                expected = "multipart/related" if RENDERS_OLD_WAY else "multipart/mixed"
                self.assertEqual(summary(message)["body"]["ctype"], expected)
        message = EmailMultiAlternatives("S", "B", to=["b@example.com"], alternatives=[("<p>", "text/html")])
        self.assertIn(b"<p>", as_bytes(stored(message, alternative_subtype="related")))

    def test_mime_parts_of_python2_become_those_of_python3(self) -> None:
        for kind in ("mimebase_base", "mimebase_image", "mimebase_multipart", "mimebase_text"):
            for writer, message in opened(kind, "py2.7-dj1.4", "py2.7-dj1.7"):
                with self.subTest(kind=kind, writer=writer):
                    for part in message.attachments[0].walk():
                        self.assertIs(part.policy, compat32)
                        self.assertEqual({type(text) for header in part.items() for text in header}, {str})
                        self.assertIn(type(part.get_payload()), (str, list))

    def test_binary_data_of_python2_is_not_changed(self) -> None:
        for writer, message in opened("attach_binary", "py2.7-dj1.4", "py2.7-dj1.7"):
            with self.subTest(writer=writer):
                self.assertEqual(message.attachments[0][1], b"\x89PNG\r\n\x1a\n\x00\xff\xfe\x80binary\x00")

    def test_header_objects_of_mime_parts_are_rendered(self) -> None:
        for writer, message in opened("header_obj", "py2.7-dj1.11", "py3.8-dj3.2"):
            with self.subTest(writer=writer):
                self.assertIn(b"X-H: =?utf-8?b?R3LDvMOfZQ==?=", as_bytes(message))
        part = MIMEText("x")
        part["X-H"] = Header("Grüße", "utf-8")
        attached = MIMEText("x")
        attached["X-I"] = Header("Grüße", "utf-8")
        message = EmailMessage("S", "B", "a@example.com", ["b@example.com"])
        message = stored(message, attachments=[part, ("f.eml", attached, "message/rfc822")])
        self.assertEqual(as_bytes(message).count(b"=?utf-8?b?R3LDvMOfZQ==?="), 2)

    def test_attachment_of_an_unknown_type_is_not_changed(self) -> None:
        self.assertEqual(
            stored(EmailMessage(), attachments=["what a site's own class knows"]).attachments[0][:4], "what"
        )

    def test_attached_message_is_upgraded_too(self) -> None:
        inner = EmailMultiAlternatives("Inner", "B", "a@example.com", ["b@example.com"])
        vars(inner).update(alternatives=[("<p>", "text/html")], attachments=[("a.txt", b"text", None)])
        message = EmailMessage("S", "B", "a@example.com", ["b@example.com"])
        message = stored(message, attachments=[("f.eml", inner, "message/rfc822")])
        self.assertIn(b"<p>", as_bytes(message))

    def test_upgrading_again_changes_nothing(self) -> None:
        for kind in ("alternatives", "attach_append", "encoding_charset", "mimebase_multipart"):
            pickled = (PAYLOADS / "py3.6-dj1.11" / f"{kind}.pickle").read_bytes()
            with self.subTest(kind=kind):
                once = loads(pickled)
                twice = loads(dumps(once))
                self.assertEqual(summary(twice.email), summary(once.email))

    def test_message_is_stored_again_with_the_types_of_this_django(self) -> None:
        pickled = (PAYLOADS / "py3.11-dj4.2" / "alternatives.pickle").read_bytes()
        again = pickle.loads(dumps(loads(pickled)))["email"]
        self.assertIs(type(again), EmailMultiAlternatives)
        self.assertEqual([type(each) for each in again.alternatives], [ALTERNATIVE])
