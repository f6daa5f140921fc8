"""Big attachments: the rendered message is byte for byte the same as Django's."""

from __future__ import annotations

import gc
import inspect
import random
import weakref
from email.mime.image import MIMEImage
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend
from django.test import SimpleTestCase

from mailqueue_backend.transport.rendering import BIG, with_encoded_attachments

HEADERS = {"Message-ID": "<1@example.com>", "Date": "Thu, 01 Jan 2026 00:00:00 -0000"}


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def with_attachments(*attachments: Any, kind: type[EmailMessage] = EmailMessage) -> EmailMessage:
    original = kind("Grüße", "Täxt", "from@example.com", ["to@example.com"], headers=HEADERS)
    for attachment in attachments:
        original.attach(*attachment)
    return original


def rendered(message: Any) -> bytes:
    """Render as Django's backend does, with reproducible boundaries."""
    random.seed(1)
    if "policy" in inspect.signature(EmailMessage.message).parameters:
        from email.policy import SMTP

        return bytes(message.message(policy=SMTP).as_bytes())
    return bytes(message.message().as_bytes(linesep="\r\n"))


class SameBytesTests(SimpleTestCase):
    def assertSame(self, original: EmailMessage) -> None:
        slim = with_encoded_attachments(original)
        self.assertIsNot(slim, original)
        self.assertTrue(rendered(slim) == rendered(original), "not the same bytes")

    def test_any_size(self) -> None:
        for size in [*range(BIG, BIG + 60), 57_000 * 2, 57_000 * 2 + 1]:
            with self.subTest(size=size):
                self.assertSame(with_attachments(("a.bin", content(size), "application/octet-stream")))

    def test_several(self) -> None:
        big, small = content(BIG), content(10)
        self.assertSame(
            with_attachments(
                ("päper.pdf", big, "application/pdf"),
                ("small.bin", small, "application/octet-stream"),
                ("text.txt", "x" * 2 * BIG, "text/plain"),
                ("same.png", big, "image/png"),
                (None, big, "application/zip"),
            )
        )

    def test_beside_an_alternative(self) -> None:
        original = with_attachments(("a.bin", content(BIG), "application/zip"), kind=EmailMultiAlternatives)
        assert isinstance(original, EmailMultiAlternatives)
        original.attach_alternative("<p>Täxt</p>", "text/html")
        self.assertSame(original)

    def test_attachments_that_are_plain_tuples(self) -> None:
        original = with_attachments()
        original.attachments = [("a.bin", content(BIG), "application/zip")]
        self.assertSame(original)

    def test_bare_line_feeds(self) -> None:
        original = with_attachments(("a.bin", content(BIG), "application/zip"))
        slim = with_encoded_attachments(original)
        random.seed(1)
        bare = slim.message().as_bytes()
        random.seed(1)
        self.assertTrue(bare == original.message().as_bytes(), "not the same bytes")

    def test_original_is_not_changed(self) -> None:
        original = with_attachments(("a.bin", content(BIG), "application/zip"))
        before = dict(vars(original), attachments=list(original.attachments))
        rendered(with_encoded_attachments(original))
        self.assertEqual(vars(original), before)

    def test_copy_is_freed_without_the_garbage_collector(self) -> None:
        slim = with_encoded_attachments(with_attachments(("a.bin", content(BIG), "application/zip")))
        rendered(slim)
        gone = weakref.ref(slim)
        gc.disable()
        self.addCleanup(gc.enable)
        del slim
        self.assertIsNone(gone())


class OwnMessage(EmailMessage):
    """A site's own class, whose rendering is unknown."""


class UnchangedTests(SimpleTestCase):
    def assertUnchanged(self, original: Any) -> None:
        self.assertIs(with_encoded_attachments(original), original)

    def big(self, kind: type[EmailMessage] = EmailMessage) -> EmailMessage:
        return with_attachments(("a.bin", content(BIG), "application/zip"), kind=kind)

    def test_nothing_big(self) -> None:
        self.assertUnchanged(with_attachments())
        self.assertUnchanged(with_attachments(("a.bin", content(BIG - 1), "application/zip")))

    def test_attachments_that_are_not_encoded_in_base64(self) -> None:
        self.assertUnchanged(with_attachments(("a.txt", "x" * BIG, "text/plain")))
        self.assertUnchanged(with_attachments(("a.eml", b"x" * BIG, "message/rfc822")))
        part = with_attachments()
        part.attachments = [
            MIMEImage(content(BIG), "png"),
            ("a.txt", b"x" * BIG, "text/plain"),
            ("a", b"x" * BIG, None),
        ]
        self.assertUnchanged(part)

    def test_class_of_a_site(self) -> None:
        self.assertUnchanged(self.big(OwnMessage))
        self.assertUnchanged(object())

    def test_patched_methods(self) -> None:
        for patched in (mock.patch.object(EmailMessage, "message"), mock.patch.object(EmailBackend, "_send")):
            with patched:
                self.assertUnchanged(self.big())
