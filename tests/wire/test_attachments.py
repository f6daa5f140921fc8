"""Big attachments arrive as they were attached."""

from __future__ import annotations

import random

from django.core.mail import EmailMessage

from mailqueue_backend.transport.rendering import BIG
from tests.cases import message
from tests.smtp import in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase


def content(size: int) -> bytes:
    return random.Random(size).randbytes(size)


def with_attachment(size: int) -> EmailMessage:
    original = message("big")
    original.attach("a.bin", content(size), "application/zip")
    return original


class DeliveryTests(ScriptedTestCase):
    def test_content_arrives(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                self.serve(extensions=extensions)
                original = with_attachment(10 * BIG + 5)
                self.backend().send_messages([original])
                self.assertEqual(self.drain().sent, 1)
                received = self.smtp.stored[0].message
                (attachment,) = (part for part in received.walk() if part.get_filename() == "a.bin")
                self.assertEqual(attachment.get_payload(decode=True), content(10 * BIG + 5))

    def test_message_that_fails_keeps_its_attachment(self) -> None:
        self.serve(in_turn(DATA=["451 later"]))
        self.backend().send_messages([with_attachment(BIG)])
        self.failing_drain()
        self.drain()
        (attachment,) = (part for part in self.smtp.stored[0].message.walk() if part.get_filename() == "a.bin")
        self.assertEqual(attachment.get_payload(decode=True), content(BIG))
