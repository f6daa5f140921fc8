"""The envelope: the format of payloads, their signatures, and the time of creation."""

from __future__ import annotations

import hmac
import pickle
import sys
import traceback
from datetime import datetime, timedelta, timezone
from hashlib import sha256
from types import ModuleType
from typing import Any
from unittest import mock

from django.conf import settings
from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.test import SimpleTestCase, override_settings
from django.utils import translation
from django.utils.crypto import salted_hmac
from django.utils.encoding import force_bytes
from django.utils.translation import gettext_lazy

from mailqueue_backend.envelope import META_KEY, PROTOCOL, Envelope, Meta, dumps, latest_epoch, loads, sign, signature
from mailqueue_backend.errors import ConfigurationError, UnknownClass, Unreadable
from mailqueue_backend.mail.smtp import QueuedEmailBackend

CREATED = datetime(2026, 11, 24, 4, 27, 50)
calls: list[str] = []


def message(**attributes: Any) -> EmailMessage:
    email = EmailMessage("Subject", "Body", "from@example.com", ["to@example.com"])
    vars(email).update(attributes)
    return email


def wrapped(email: Any = None, created: Any = CREATED, **extra: Any) -> bytes:
    return dumps(Envelope(email or message(), created, extra))


def unsigned(**content: Any) -> bytes:
    """Return a payload as 0.1.2 writes it."""
    return pickle.dumps({"email": message(), "created": CREATED, **content})


class Calling:
    """Append to ``calls`` when it is unpickled."""

    def __reduce__(self) -> Any:
        return calls.append, ("unpickled",)


class Connection:
    """A connection that a message may refer to."""

    def __init__(self, password: str) -> None:
        self.password = password


class EnvelopeTestCase(SimpleTestCase):
    def setUp(self) -> None:
        calls.clear()

    def assertUnreadable(self, payload: bytes) -> str:
        with self.assertRaises(Unreadable) as caught:
            loads(payload)
        return str(caught.exception)


class PayloadTests(EnvelopeTestCase):
    def test_is_the_pickle_of_the_old_release_and_a_trailer_that_it_ignores(self) -> None:
        payload = wrapped(campaign="spring", mailqueue={"created": CREATED})
        pickled = payload[: -signature.TRAILER_SIZE]
        self.assertEqual(payload[-36:-32], b"MQB1")
        self.assertEqual(pickled[:2], b"\x80\x04")
        content = pickle.loads(payload)
        self.assertEqual(content, pickle.loads(pickled) | {"email": content["email"]})
        self.assertEqual(list(content), ["email", "created", "campaign", "mailqueue"])
        self.assertIs(type(content["email"]), EmailMessage)

    def test_loads_returns_what_dumps_stored(self) -> None:
        envelope = loads(wrapped(campaign="spring", numbers=[1, {2}], mailqueue={"attempts": 2}))
        self.assertEqual((envelope.email.subject, envelope.created), ("Subject", CREATED))
        self.assertEqual(envelope.extra, {"campaign": "spring", "numbers": [1, {2}], "mailqueue": {"attempts": 2}})

    def test_payload_requeued_by_the_old_release_keeps_our_metadata(self) -> None:
        ours = {"created": CREATED, "created_epoch": 1.5, "attempts": 2, "recipients": ["to@example.com"]}
        for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
            with self.subTest(protocol=protocol):
                requeued = pickle.dumps(pickle.loads(wrapped(mailqueue=ours, campaign="spring")), protocol)
                envelope = loads(requeued)
                self.assertEqual(envelope.extra, {"mailqueue": ours, "campaign": "spring"})
                self.assertEqual(envelope.meta.epoch(envelope.created), 1.5)

    def test_aware_time_is_stored_and_loaded_as_naive_local_time(self) -> None:
        aware = CREATED.replace(tzinfo=timezone(timedelta(hours=9)))
        local = aware.astimezone().replace(tzinfo=None)
        self.assertEqual(pickle.loads(wrapped(created=aware))["created"], local)
        self.assertEqual(loads(sign(unsigned(created=aware))).created, local)

    def test_lazy_text_is_stored_in_the_language_of_the_sender(self) -> None:
        with translation.override("de"):
            payload = wrapped(message(subject=gettext_lazy("January")))
        self.assertEqual(loads(payload).email.subject, "Januar")
        self.assertEqual(loads(pickle.dumps(pickle.loads(payload))).email.subject, "Januar")

    def test_time_that_is_no_datetime_cannot_be_stored(self) -> None:
        for created in (None, "now", 1.5, CREATED.date()):
            with self.subTest(created=created):
                self.assertRaises(TypeError, wrapped, created=created)


class SignatureTests(EnvelopeTestCase):
    def test_is_django_s_salted_hmac(self) -> None:
        payload = wrapped()
        expected = salted_hmac(signature.SALT, payload[:-36], algorithm="sha256").digest()
        self.assertEqual(payload[-32:], expected)

    def test_no_byte_can_be_changed(self) -> None:
        payload = wrapped(calling=Calling())
        for position in range(len(payload)):
            changed = bytearray(payload)
            changed[position] ^= 1
            with self.subTest(position=position):
                self.assertUnreadable(bytes(changed))
        self.assertEqual(calls, [])

    def test_no_byte_can_be_added_or_taken_away(self) -> None:
        payload = wrapped(calling=Calling())
        for size in range(len(payload)):
            self.assertUnreadable(payload[:size])
            self.assertUnreadable(payload[size + 1 :])
        for longer in (payload + b"\n", payload + b"." * 36, payload + payload[-36:], b"\n" + payload):
            self.assertUnreadable(longer)
        self.assertEqual(calls, [])

    def test_signature_of_another_payload_is_refused(self) -> None:
        first, second = wrapped(campaign="first"), wrapped(campaign="second")
        self.assertUnreadable(first[:-32] + second[-32:])

    def test_nothing_is_unpickled_under_a_wrong_signature(self) -> None:
        with override_settings(SECRET_KEY="of a stranger"):
            payload = wrapped(calling=Calling())
        self.assertUnreadable(payload)
        self.assertUnreadable(payload[:-32] + bytes(32))
        self.assertUnreadable(payload[:-36])
        self.assertEqual(calls, [])

    def test_payload_with_a_wrong_signature_is_not_read_as_unsigned(self) -> None:
        self.assertEqual(loads(unsigned()).email.subject, "Subject")
        self.assertIn("SECRET_KEY", self.assertUnreadable(unsigned() + b"MQB1" + bytes(32)))
        self.assertIn("SECRET_KEY", self.assertUnreadable(b"MQB1" + bytes(32)))

    def test_unpickling_does_not_read_beyond_the_signed_bytes(self) -> None:
        self.assertUnreadable(sign(unsigned()[:-1]))
        self.assertUnreadable(sign(b""))

    def test_old_key_is_accepted_while_it_is_a_fallback(self) -> None:
        payload = wrapped()
        for fallbacks in (["older", settings.SECRET_KEY], (settings.SECRET_KEY,), [settings.SECRET_KEY.encode()]):
            with self.subTest(fallbacks=fallbacks), self.settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=fallbacks):
                self.assertEqual(loads(payload).email.subject, "Subject")
        with self.settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[]):
            self.assertUnreadable(payload)

    def test_empty_fallback_is_not_used_as_a_key(self) -> None:
        pickled = wrapped(calling=Calling())[:-36]
        for fallback, known in (("", ""), (None, "None"), (b"", b"")):
            derived = sha256(signature.SALT.encode() + force_bytes(known)).digest()
            forged = pickled + signature.MAGIC + hmac.digest(derived, pickled, "sha256")
            with self.subTest(fallback=fallback), self.settings(SECRET_KEY_FALLBACKS=[fallback]):
                self.assertUnreadable(forged)
        self.assertEqual(calls, [])

    def test_new_payload_is_signed_with_the_new_key(self) -> None:
        with self.settings(SECRET_KEY="new", SECRET_KEY_FALLBACKS=[settings.SECRET_KEY]):
            payload = wrapped()
        self.assertUnreadable(payload)

    def test_signing_makes_any_unsigned_payload_readable(self) -> None:
        self.assertUnreadable(unsigned(beside={1, 2}))
        self.assertEqual(loads(sign(unsigned(beside={1, 2}))).extra, {"beside": {1, 2}})

    def test_signing_replaces_a_signature_that_no_longer_verifies(self) -> None:
        with self.settings(SECRET_KEY="old"):
            payload = wrapped(beside={1, 2})
        again = sign(payload)
        self.assertEqual(len(again), len(payload))
        self.assertEqual(loads(again).extra, {"beside": {1, 2}})

    def test_text_that_looks_like_a_trailer_is_stored_whole(self) -> None:
        payload = wrapped(beside="MQB1" + "x" * 28)
        for filling in range(10):
            payload = wrapped(beside="MQB1" + "x" * (28 + filling - 5))
            self.assertEqual(loads(payload).extra, {"beside": "MQB1" + "x" * (28 + filling - 5)})


class UnsignedTests(EnvelopeTestCase):
    def test_quarantine_refuses_every_unsigned_payload(self) -> None:
        with self.settings(MAIL_QUEUE_UNSIGNED="quarantine"):
            self.assertIn("quarantine", self.assertUnreadable(unsigned()))
            self.assertEqual(loads(wrapped()).email.subject, "Subject")
            self.assertEqual(loads(sign(unsigned())).email.subject, "Subject")

    def test_another_value_of_the_setting_is_an_error(self) -> None:
        for value in ("trusted", "", None, True):
            with self.subTest(value=value), self.settings(MAIL_QUEUE_UNSIGNED=value):
                self.assertRaisesMessage(ConfigurationError, "MAIL_QUEUE_UNSIGNED", loads, unsigned())

    def test_unsigned_payload_is_not_unpickled(self) -> None:
        self.assertUnreadable(unsigned(calling=Calling()))
        self.assertEqual(calls, [])

    def test_payload_that_is_not_bytes_is_unreadable(self) -> None:
        for payload in (None, "text", bytearray(unsigned()), 1):
            with self.subTest(payload=payload):
                self.assertUnreadable(payload)  # type: ignore[arg-type]


class ContentTests(EnvelopeTestCase):
    def test_signed_payload_without_a_valid_message_is_unreadable(self) -> None:
        for content in (
            None,
            [],
            "text",
            {},
            {"created": CREATED},
            {"email": message()},
            {"email": None, "created": CREATED},
            {"email": message(), "created": None},
            {"email": message(), "created": CREATED.date()},
            {"email": message(), "created": 1.5},
            {"email": message(attachments=[("a", "b", "c", "d")]), "created": CREATED},
            {"email": message(attachments=None, extra_headers=None), "created": CREATED},
        ):
            with self.subTest(content=content):
                self.assertUnreadable(sign(pickle.dumps(content, PROTOCOL)))

    def test_message_that_is_no_emailmessage_is_not_changed(self) -> None:
        site = {"subject": "whatever a site's own backend sends"}
        self.assertEqual(loads(wrapped(site)).email, site)

    def test_class_that_cannot_be_imported_is_an_unknown_class(self) -> None:
        module = ModuleType("deployed_later")
        module.Mail = type("Mail", (EmailMessage,), {"__module__": "deployed_later"})  # type: ignore[attr-defined]
        with mock.patch.dict(sys.modules, deployed_later=module):
            payload = wrapped(module.Mail("S", "B"))
            self.assertEqual(loads(payload).email.subject, "S")
        self.assertRaisesMessage(UnknownClass, "deployed_later.Mail", loads, payload)
        module_without_it = mock.patch.dict(sys.modules, deployed_later=ModuleType("deployed_later"))
        with module_without_it, self.assertRaises(UnknownClass):
            loads(payload)

    def test_class_whose_module_fails_to_import_is_an_unknown_class(self) -> None:
        payload = sign(b"\x80\x04cantigravity.nothing\nMail\n.")
        self.assertRaises(UnknownClass, loads, payload)

    def test_missing_class_of_a_python2_payload_is_an_unknown_class(self) -> None:
        payload = sign(
            b"(dS'email'\nccopy_reg\n_reconstructor\n(cnowhere.mail\nMail\nc__builtin__\nobject\nNtR"
            b"(dS'to'\n(lsS'subject'\nS''\nsS'body'\nS''\nsS'from_email'\nS''\nsbs."
        )
        self.assertRaisesMessage(UnknownClass, "nowhere.mail.Mail", loads, payload)
        for other in (b"os\nsystem", b"builtins\nint"):
            with self.subTest(other=other):
                known = sign(payload.replace(b"nowhere.mail\nMail", other))
                self.assertNotIsInstance(self.error(known), UnknownClass)

    def error(self, payload: bytes) -> Unreadable:
        with self.assertRaises(Unreadable) as caught:
            loads(payload)
        return caught.exception

    def test_class_that_fails_while_it_is_unpickled_is_unreadable(self) -> None:
        for error in (ValueError("x"), AttributeError("x"), ImportError("x"), RecursionError()):
            with (
                self.subTest(error=error),
                mock.patch.object(EmailMessage, "__setstate__", create=True, side_effect=error),
            ):
                self.assertNotIsInstance(self.error(wrapped()), UnknownClass)


class IdentityTests(EnvelopeTestCase):
    def test_message_of_the_old_release_keeps_one_message_id_and_date(self) -> None:
        first, second = (loads(unsigned()).email.extra_headers for _ in range(2))
        self.assertEqual(first, second)
        self.assertRegex(first["Message-ID"], r"^<[0-9a-f]{32}@example\.com>$")
        self.assertEqual(first["Date"], "Tue, 24 Nov 2026 04:27:50 -0000")
        requeued = dumps(loads(unsigned()))
        self.assertEqual(loads(requeued).email.extra_headers, first)
        self.assertEqual(loads(sign(unsigned())).email.extra_headers, first)

    def test_message_requeued_by_the_old_release_without_them_gets_them_too(self) -> None:
        self.assertIn("Message-ID", loads(pickle.dumps(pickle.loads(wrapped(mailqueue={})))).email.extra_headers)

    def test_different_messages_have_different_message_ids(self) -> None:
        other = loads(unsigned(beside=1)).email.extra_headers["Message-ID"]
        self.assertNotEqual(loads(unsigned()).email.extra_headers["Message-ID"], other)

    def test_headers_of_the_site_are_kept(self) -> None:
        for headers in ({"Message-ID": "<x@y>", "Date": "then"}, {"message-id": "<x@y>", "DATE": "then"}):
            with self.subTest(headers=headers):
                self.assertEqual(loads(unsigned(email=message(extra_headers=headers))).email.extra_headers, headers)

    def test_date_may_be_in_local_time(self) -> None:
        with self.settings(TIME_ZONE="Asia/Tokyo", EMAIL_USE_LOCALTIME=True):
            self.assertEqual(loads(unsigned()).email.extra_headers["Date"], "Tue, 24 Nov 2026 04:27:50 +0900")

    def test_sender_of_any_form_gives_a_message_id(self) -> None:
        for sender, domain in (
            ("Me <me@example.com>", "example.com"),
            ("me@exämple.com", "localhost"),
            ("me@[::1]", "localhost"),
            ("me", "localhost"),
            ("", "localhost"),
            (None, "localhost"),
            ("me@" + "x" * 200, "localhost"),
        ):
            with self.subTest(sender=sender):
                headers = loads(unsigned(email=message(from_email=sender))).email.extra_headers
                self.assertTrue(headers["Message-ID"].endswith(f"@{domain}>"), headers)

    def test_message_that_we_stored_without_them_stays_without(self) -> None:
        self.assertEqual(loads(wrapped(mailqueue={})).email.extra_headers, {})


class CreatedTests(EnvelopeTestCase):
    def test_stamp_counts_while_it_matches_created(self) -> None:
        ours = {"created": CREATED, "created_epoch": 1.5}
        self.assertEqual(Meta.read({META_KEY: ours}).epoch(CREATED), 1.5)
        later = CREATED + timedelta(hours=1)
        self.assertEqual(Meta.read({META_KEY: ours}).epoch(later), later.timestamp())
        self.assertEqual(Meta.read({}).epoch(CREATED), CREATED.timestamp())

    def test_invalid_stamp_does_not_count(self) -> None:
        epochs = (None, "1.5", [], float("nan"), float("inf"), -float("inf"), 10**400, -(10**400), 1e300, {}, CREATED)
        for ours in (
            *({"created": CREATED, "created_epoch": epoch} for epoch in epochs),
            {"created": CREATED},
            {"created_epoch": 1.5},
            {},
            None,
            "text",
            [],
            7,
        ):
            with self.subTest(ours=ours):
                self.assertEqual(Meta.read({META_KEY: ours}).epoch(CREATED), CREATED.timestamp())

    def test_stamp_of_whole_seconds_counts(self) -> None:
        self.assertEqual(Meta.read({META_KEY: {"created": CREATED, "created_epoch": 7}}).epoch(CREATED), 7.0)

    def test_ambiguous_local_time_is_read_as_the_later_one(self) -> None:
        with self.settings(TIME_ZONE="Europe/Berlin"):
            autumn = datetime(2026, 10, 25, 2, 30)
            self.assertEqual(latest_epoch(autumn), datetime(2026, 10, 25, 1, 30, tzinfo=timezone.utc).timestamp())
            self.assertEqual(latest_epoch(autumn.replace(fold=1)), latest_epoch(autumn))

    def test_stamp_is_right_whatever_the_time_zone_of_the_drain(self) -> None:
        with self.settings(TIME_ZONE="UTC"):
            payload = wrapped(mailqueue={"created": CREATED, "created_epoch": CREATED.timestamp()})
        with self.settings(TIME_ZONE="Asia/Tokyo"):
            envelope = loads(payload)
            epoch = envelope.meta.epoch(envelope.created)
        self.assertEqual(epoch, CREATED.replace(tzinfo=timezone.utc).timestamp())

    def test_earliest_and_latest_datetime_have_an_epoch(self) -> None:
        for zone in ("UTC", "Asia/Tokyo", "America/New_York"):
            with self.settings(TIME_ZONE=zone):
                self.assertLess(latest_epoch(datetime.min), -6e10)
                self.assertGreater(latest_epoch(datetime.max), 2e11)


@override_settings(SECRET_KEY="kept-secret-key", SECRET_KEY_FALLBACKS=["kept-secret-fallback"])
class SecretTests(EnvelopeTestCase):
    SECRETS = ("kept-secret-key", "kept-secret-fallback", "kept-secret-password")

    def assertNoSecret(self, text: bytes | str) -> None:
        data = text.encode() if isinstance(text, str) else text
        for secret in self.SECRETS:
            self.assertNotIn(secret.encode(), data)

    def test_payload_contains_no_secret(self) -> None:
        for name in ("connection", "_connection"):
            email = QueuedEmailBackend._make_pickleable(message(**{name: Connection(self.SECRETS[2])}))
            self.assertNoSecret(QueuedEmailBackend._wrap(email))

    def test_error_contains_no_secret_and_nothing_of_the_payload(self) -> None:
        body = message(body="kept-secret-password")
        good = pickle.dumps({"email": body, "created": CREATED})
        for payload in (
            wrapped(body)[:-1] + b"x",
            good[:-1],
            good.replace(b"EmailMessage", b"kept_message"),
            pickle.dumps({"email": body, "created": "kept-secret-password"}),
            sign(pickle.dumps({"email": body, "created": "kept-secret-password"})),
            sign(pickle.dumps({"email": message(attachments=["kept-secret-password"]), "created": 1})),
            sign(b"\x80\x04ckept_secret\nname\n."),
        ):
            with self.subTest(payload=payload):
                try:
                    loads(payload)
                except Unreadable as error:
                    self.assertNoSecret("".join(traceback.format_exception(error)))
                else:
                    self.fail("opened")

    def test_error_about_the_keys_does_not_show_them(self) -> None:
        for wrong in ({"SECRET_KEY": ["kept-secret-key"]}, {"SECRET_KEY_FALLBACKS": "kept-secret-fallback"}):
            with self.subTest(wrong=wrong), self.settings(**wrong), self.assertRaises(ConfigurationError) as caught:
                loads(wrapped()[:-1] + b"x")
            self.assertNoSecret("".join(traceback.format_exception(caught.exception)))


class SubclassTests(EnvelopeTestCase):
    def test_message_with_alternatives_is_restored(self) -> None:
        email = EmailMultiAlternatives("S", "B", "from@example.com", ["to@example.com"])
        email.attach_alternative("<p>", "text/html")
        self.assertEqual([tuple(each) for each in loads(wrapped(email)).email.alternatives], [("<p>", "text/html")])
