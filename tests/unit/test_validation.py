"""send() refuses messages that Django could never send, and accepts every other."""

from __future__ import annotations

from email.charset import Charset
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail.backends.smtp import EmailBackend
from django.test import override_settings

from mailqueue_backend.errors import UnstorableMessage
from mailqueue_backend.mail import relay
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import QueueTestCase, message
from tests.rendered import as_bytes

# Python's parser raises IndexError for some addresses, in some releases.
INVALID = (ValueError, UnstorableMessage)
# Django >= 6.0: addresses are parsed more strictly.
IS_STRICT = hasattr(EmailBackend, "prep_address")


def changed(**attributes: Any) -> EmailMessage:
    original = EmailMultiAlternatives("Subject", "Body", "from@example.com", ["to@example.com"])
    vars(original).update(attributes)
    return original


class ValidationTestCase(QueueTestCase):
    def assertRefused(
        self, error: type[Exception] | tuple[type[Exception], ...], original: EmailMessage, backend: Any = None
    ) -> None:
        before = len(self.queue)
        with self.assertRaises(error):
            (backend or QueuedEmailBackend(fail_silently=True)).send_messages([message(), original])
        self.assertEqual(len(self.queue), before)

    def assertQueued(self, original: EmailMessage, backend: Any = None) -> None:
        before = len(self.queue)
        self.assertEqual((backend or QueuedEmailBackend()).send_messages([original]), 1)
        self.assertEqual(len(self.queue), before + 1)


class AddressTests(ValidationTestCase):
    def test_invalid_address_is_refused(self) -> None:
        for address in ("a@", "@b", "a@example.com, b@example.com", "a@b..c", "A, B <a@example.com>"):
            for attributes in ({"to": [address]}, {"cc": [address]}, {"bcc": [address]}, {"from_email": address}):
                with self.subTest(attributes=attributes):
                    self.assertRefused(INVALID, changed(**attributes))

    def test_domain_that_cannot_be_encoded_is_refused(self) -> None:
        self.assertRefused(UnicodeError, changed(to=["a@" + "é" * 64 + ".example"]))

    def test_valid_addresses_are_accepted(self) -> None:
        for address in (
            "a.b+c-d_e@mail.example.com",
            "Ann <ann@example.com>",
            "Ann Other <ann@example.com>",
            "Jörg <joerg@exämple.com>",
            '"Other, Ann" <ann@example.com>',
            "webmaster",
            "a@[127.0.0.1]",
            "<a@example.com>",
        ):
            with self.subTest(address=address):
                self.assertQueued(changed(to=[address], from_email=address))

    def test_other_addresses_are_for_django_to_accept(self) -> None:
        for address in ("é@example.com", "a b@example.com", "a..b@example.com"):
            with self.subTest(address=address):
                if IS_STRICT:
                    self.assertRefused(ValueError, changed(to=[address]))
                else:
                    self.assertQueued(changed(to=[address]))

    def test_plain_address_is_not_parsed(self) -> None:
        with mock.patch("mailqueue_backend.mail.validation.prepare_address") as prepare:
            self.assertQueued(changed(to=["a@example.com"] * 3, cc=["Ann Other <a@example.com>"]))
        prepare.assert_not_called()

    def test_object_that_is_no_address_is_refused(self) -> None:
        if IS_STRICT:
            self.assertRefused(ValueError, changed(to=[("Ann", None)]))
        else:
            self.assertRefused(UnstorableMessage, changed(to=[("Ann", None)]))

    def test_backend_with_its_own_delivery_may_accept_any_address(self) -> None:
        class OwnSend(QueuedEmailBackend):
            def _send(self, email_message: Any) -> Any:
                """Send a text message."""

        class OwnHook(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                return self.SENT

        class OwnAddresses(QueuedEmailBackend):
            def prep_address(self, address: Any, force_ascii: bool = True) -> Any:
                return address

        for kind in (OwnSend, OwnHook, *([OwnAddresses] if IS_STRICT else [])):
            with self.subTest(kind=kind):
                self.assertQueued(changed(to=["+49 (30) 1234, 5"]), kind())
        with override_settings(MAIL_QUEUE_DELIVERY_BACKEND="django.core.mail.backends.dummy.EmailBackend"):
            self.assertQueued(changed(to=["+49 (30) 1234, 5"], encoding="no-charset"), relay.QueuedEmailBackend())

    def test_relay_to_smtp_refuses_too(self) -> None:
        with override_settings(MAIL_QUEUE_DELIVERY_BACKEND="django.core.mail.backends.smtp.EmailBackend"):
            self.assertRefused(INVALID, changed(to=["a@"]), relay.QueuedEmailBackend())


class TextTests(ValidationTestCase):
    def test_surrogate_is_refused(self) -> None:
        for attributes in (
            {"subject": "a\ud800"},
            {"body": "a\ud800"},
            {"extra_headers": {"X-Test": "a\ud800"}},
            {"to": ["a\ud800@example.com"]},
            {"alternatives": [("<p>\ud800", "text/html")]},
        ):
            with self.subTest(attributes=attributes):
                if "alternatives" in attributes:
                    original = changed()
                    original.attach_alternative("<p>\ud800", "text/html")  # type: ignore[attr-defined]
                else:
                    original = changed(**attributes)
                self.assertRefused(ValueError if "to" in attributes else UnicodeEncodeError, original)

    def test_unknown_charset_is_refused(self) -> None:
        for encoding in ("no-charset", "base64"):
            with self.subTest(encoding=encoding):
                self.assertRefused(LookupError, changed(encoding=encoding))

    def test_text_that_a_charset_lacks_is_refused(self) -> None:
        self.assertRefused(UnicodeEncodeError, changed(encoding="iso-8859-1", body="5 €"))

    def test_other_charsets_are_accepted(self) -> None:
        for encoding in ("iso-8859-1", "UTF8", "koi8-r", *(() if IS_STRICT else (Charset("utf-8"),))):
            with self.subTest(encoding=encoding):
                self.assertQueued(changed(encoding=encoding))
        self.assertQueued(changed(encoding="iso-8859-15", body="5 €"))

    def test_charset_that_the_message_itself_corrects_is_accepted(self) -> None:
        original = OwnCharset("Subject", "Body", "from@example.com", ["to@example.com"])
        original.encoding = "no-charset"
        self.assertQueued(original)
        self.assertEqual(original.encoding, "no-charset")

    def test_index_error_of_the_parser_is_unstorable(self) -> None:
        with mock.patch("mailqueue_backend.mail.validation.prepare_address", side_effect=IndexError):
            self.assertRefused(UnstorableMessage, changed(to=["a@"]))

    def test_message_that_cannot_be_rendered_yet_is_accepted(self) -> None:
        self.assertQueued(FailingNow("Sub\nject", "Body", "from@example.com", ["to@example.com"]))

    def test_reply_address_that_cannot_be_encoded_is_refused(self) -> None:
        address = "a@" + "é" * 64 + ".example"
        for attributes in ({"reply_to": [address]}, {"extra_headers": {"Sender": address}}):
            with self.subTest(attributes=attributes):
                self.assertRefused(UnicodeError, changed(**attributes))
        self.assertQueued(changed(reply_to=["Jörg <joerg@example.com>"]))

    def test_header_that_django_refuses_is_refused(self) -> None:
        for headers, error_of_django, error in (
            ({"Bcc": "a@example.com"}, ValueError, ValueError),
            ({"X-Number": 5}, TypeError, UnstorableMessage),
        ):
            with self.subTest(headers=headers):
                original = changed(extra_headers=headers)
                try:
                    as_bytes(original)
                except error_of_django:
                    self.assertRefused(error, original)
                else:
                    self.assertQueued(original)

    def test_valid_message_is_not_rendered(self) -> None:
        original = changed(subject="Grüße", body="Zeile\nZeile €", reply_to=["Ann <ann@example.com>"])
        with mock.patch.object(EmailMessage, "message") as rendered:
            self.assertQueued(original)
        rendered.assert_not_called()


class FailingNow(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        raise TypeError("before the drain")


class OwnCharset(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.encoding = "utf-8"
        return super().message(**kwargs)
