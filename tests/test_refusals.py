"""Who was refused, and for how long."""

from __future__ import annotations

import smtplib

from django.core.mail import EmailMessage
from django.test import SimpleTestCase

from mailqueue_backend.mail.refusals import Refusal, addressed_to, refusals, refused_for_good


class RefusalsTests(SimpleTestCase):
    def test_the_refused_have_their_own_names(self) -> None:
        found = refusals(
            ["Ä <a@x>", "b@ü", "c@x"], ["a@x", "b@xn--", "c@x"], {"b@xn--": (550, b"n\xffo"), "a@x": (450, b"")}
        )
        self.assertEqual(found, [Refusal("b@ü", 550, "n\ufffdo"), Refusal("Ä <a@x>", 450, "")])

    def test_names_that_do_not_fit_are_not_used(self) -> None:
        self.assertEqual(refusals(["a@x"], ["b@x", "c@x"], {"c@x": (450, b"no")}), [Refusal("c@x", 450, "no")])

    def test_nobody(self) -> None:
        self.assertEqual(refusals(["a@x"], ["a@x"], {}), [])

    def test_for_good(self) -> None:
        for code, permanent in ((450, False), (499, False), (500, True), (599, True), (-1, False), (600, False)):
            with self.subTest(code=code):
                self.assertEqual(Refusal("a@x", code, "").permanent, permanent)

    def test_text_is_the_server_s(self) -> None:
        self.assertEqual(str(Refusal("a@x", 550, "no such user")), "550 no such user")


class ErrorTests(SimpleTestCase):
    def test_what_refuses_a_message_for_good(self) -> None:
        for error, permanent in (
            (smtplib.SMTPDataError(554, b"no"), True),
            (smtplib.SMTPDataError(451, b"later"), False),
            (smtplib.SMTPSenderRefused(550, b"no", "a@x"), True),
            (smtplib.SMTPSenderRefused(421, b"later", "a@x"), False),
            (smtplib.SMTPRecipientsRefused({"a@x": (550, b""), "b@x": (551, b"")}), True),
            (smtplib.SMTPRecipientsRefused({"a@x": (550, b""), "b@x": (450, b"")}), False),
            (smtplib.SMTPServerDisconnected("gone"), False),
            (smtplib.SMTPDataError(-1, b"?"), False),
            (ValueError("550"), False),
            ("nobody to send it to", False),
        ):
            with self.subTest(error=error):
                self.assertEqual(refused_for_good(error), permanent)


class AddressedToTests(SimpleTestCase):
    def test_copy_goes_to_some_and_names_all(self) -> None:
        original = EmailMessage("a", "b", "from@x.example", ["a@x.example", "b@x.example"])
        copy = addressed_to(original, ["b@x.example"])
        self.assertEqual(copy.recipients(), ["b@x.example"])
        self.assertEqual(copy.message()["To"], "a@x.example, b@x.example")
        self.assertEqual(original.recipients(), ["a@x.example", "b@x.example"])
