"""What an unsigned payload may contain and how it is read: messages, strings, dates, a site's own fields."""

from __future__ import annotations

import pickle
import warnings
from datetime import datetime
from typing import Any

from django.core.mail import EmailMessage
from django.test import SimpleTestCase
from django.utils import translation
from django.utils.safestring import mark_safe
from django.utils.translation import gettext_lazy, ngettext_lazy, npgettext_lazy, pgettext_lazy

from mailqueue_backend.envelope import Envelope, loads
from mailqueue_backend.errors import Unreadable
from tests import PAYLOADS
from tests.unit import inert

CREATED = datetime(2026, 11, 24, 4, 27, 50, 510, fold=1)
#: A payload of Python 2, with placeholders for attributes of the message and for fields beside it.
PYTHON2 = (
    b"(dS'email'\nccopy_reg\n_reconstructor\n(cdjango.core.mail.message\nEmailMessage\nc__builtin__\nobject\nNtR"
    b"(dS'subject'\nS'S'\nsS'body'\nS'B'\nsS'from_email'\nS'a@example.com'\nsS'to'\n(lVb@example.com\na%ssb"
    b"sS'created'\ncdatetime\ndatetime\n(S'\\x07\\xea\\x0b\\x18\\x04\\x1b2\\x00\\x01\\xfe'\ntR%ss."
)


def python2(attribute: bytes = b"sS'cc'\n(l", beside: bytes = b"sS'n'\nI1\n") -> Envelope:
    envelope = loads(PYTHON2 % (attribute, beside))
    assert inert.find_fault(envelope) is None
    return envelope


def opened(message: EmailMessage | None = None, protocol: int | None = None, **extra: Any) -> Envelope:
    """Pickle the message as 0.1.2 does, and open it."""
    content = {"email": message or EmailMessage(to=["b@example.com"]), "created": CREATED, **extra}
    envelope = loads(pickle.dumps(content, protocol))
    assert inert.find_fault(envelope) is None
    return envelope


class FieldTests(SimpleTestCase):
    def test_plain_data_of_the_site_is_restored(self) -> None:
        for value in (
            None,
            True,
            False,
            7,
            -(2**40),
            2**100,
            1.5,
            "é\n\U0001f4e8",
            b"\xff",
            CREATED,
            [1, [2, (3, {"k": ["v"]})]],
            {"k": {1: "v"}},
            (),
            {},
            "x" * 70000,
            b"x" * 70000,
            list(range(5000)),
        ):
            for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(value=value, protocol=protocol):
                    self.assertEqual(opened(protocol=protocol, field=value).extra, {"field": value})
                    message = EmailMessage(to=["b@example.com"])
                    message.field = value  # type: ignore[attr-defined]
                    self.assertEqual(opened(message, protocol).email.field, value)

    def test_time_of_creation_is_exact(self) -> None:
        self.assertEqual((opened().created, opened().created.fold), (CREATED, 1))

    def test_shared_field_is_restored_in_both_places(self) -> None:
        value = ["a", "b"]
        self.assertEqual(opened(one=value, two=[value, value]).extra, {"one": value, "two": [value, value]})

    def test_fields_of_mail_services_are_restored(self) -> None:
        for writer in ("py2.7-dj1.4", "py3.6-dj1.11", "py3.13-dj6.1"):
            with self.subTest(writer=writer):
                message = loads((PAYLOADS / writer / "anymail_attrs.pickle").read_bytes()).email
                self.assertEqual((message.tags, message.metadata), (["a"], {"k": 1}))
                self.assertEqual(message.esp_extra, {"x": [1, 2.5, None, True]})

    def test_safe_text_becomes_text(self) -> None:
        message = opened(EmailMessage(mark_safe("S"), mark_safe("B"), to=[mark_safe("b@example.com")])).email
        self.assertEqual({type(message.subject), type(message.body), type(message.to[0])}, {str})


class TranslationTests(SimpleTestCase):
    def test_lazy_translation_is_translated_when_it_is_opened(self) -> None:
        for lazy, german in (
            (gettext_lazy("January"), "Januar"),
            (pgettext_lazy("alt. month", "January"), "Januar"),
            (ngettext_lazy("%(num)d year", "%(num)d years", 2), "%(num)d Jahre"),
            (npgettext_lazy("none", "one", "many", 2), "many"),
        ):
            with self.subTest(german=german), translation.override("de"):
                message = opened(EmailMessage(subject=lazy, body=lazy, to=["b@example.com"])).email
                self.assertEqual((message.subject, message.body), (german, german))

    def test_lazy_translation_of_python2_is_translated(self) -> None:
        lazy = b"sS'x'\ncdjango.utils.functional\n_lazy_proxy_unpickle\n(cdjango.utils.translation\n%s\n%s(d%stR"
        unicode, text = b"c__builtin__\nunicode\n", b"c__builtin__\nstr\n"
        for function, arguments, kind, german in (
            (b"ugettext", b"(VJanuary\nt", unicode, "Januar"),
            (b"gettext", b"(S'January'\nt", text, "Januar"),
            (b"pgettext", b"(Valt. month\nVJanuary\nt", unicode, "Januar"),
            (b"ungettext", b"(V%(num)d year\nV%(num)d years\nI2\nt", unicode, "%(num)d Jahre"),
        ):
            with self.subTest(function=function), translation.override("de"):
                self.assertEqual(python2(lazy % (function, arguments, kind)).email.x, german)


class Python2Tests(SimpleTestCase):
    def test_values_of_every_type_are_restored(self) -> None:
        for opcodes, value in (
            (b"N", None),
            (b"I00\n", False),
            (b"I01\n", True),
            (b"I-7\n", -7),
            (b"L1267650600228229401496703205376L\n", 2**100),
            (b"F1.5\n", 1.5),
            (b"S'text'\n", "text"),
            (b'S"it\'s"\n', "it's"),
            (rb"S'\'\"\\\n\r\t\xc3\xa9'" + b"\n", "'\"\\\n\r\té"),
            (rb"S'\xff\x00'" + b"\n", b"\xff\x00"),
            (b"S'\\\\x41'\n", "\\x41"),
            (b"Vt\xe9xt \\u2603 \\U0001f4e8 \\u005c \\u000a\n", "téxt ☃ \U0001f4e8 \\ \n"),
            (b"U\x02\xc3\xa9", "é"),
            (b"T\x02\x00\x00\x00\xc3\xa9", "é"),
            (b"X\x02\x00\x00\x00\xc3\xa9", "é"),
            (b"(lI1\naI2\na", [1, 2]),
            (b"(I1\nI2\nl", [1, 2]),
            (b"(I1\nI2\nt", (1, 2)),
            (b"(dS'k'\nI1\ns", {"k": 1}),
            (b"(S'k'\nI1\nd", {"k": 1}),
            (b"ccopy_reg\n_reconstructor\n(cdjango.utils.safestring\nSafeUnicode\nc__builtin__\nunicode\nVx\ntR", "x"),
            (b"ccopy_reg\n_reconstructor\n(cdjango.utils.safestring\nSafeBytes\nc__builtin__\nstr\nS'x'\ntR(db", "x"),
        ):
            with self.subTest(opcodes=opcodes):
                self.assertEqual(python2(b"sS'x'\n" + opcodes, b"sS'y'\n" + opcodes).email.x, value)
                self.assertEqual(python2(beside=b"sS'y'\n" + opcodes).extra, {"y": value})

    def test_literals_that_python2_does_not_write_are_refused(self) -> None:
        for opcodes in (
            rb"S'\q'",
            rb"S'\x4'",
            rb"S'\400'",
            rb"S'\'",
            b"S'",
            b"Sx",
            b"S'x\"",
            rb"V\u12",
            b"I1.5",
            b"Ix",
            b"F1,5",
            b"L",
        ):
            with self.subTest(opcodes=opcodes), warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                self.assertRaises(Unreadable, python2, b"sS'x'\n" + opcodes + b"\n")
                self.assertEqual(caught, [])

    def test_protocol_2_is_read_as_python2_s(self) -> None:
        stored = (
            b"\x80\x02}(U\x05emailcdjango.core.mail.message\nEmailMessage\n)\x81}(U\x07subjectU\x02\xc3\xa9U\x04bodyX\x01"
            b"\x00\x00\x00BU\x0afrom_emailU\x01aU\x02to]U\x01baubU\x07createdcdatetime\ndatetime\n"
            b"U\x0a\x07\xea\x0b\x18\x04\x1b2\x00\x01\xfe\x85Ru."
        )
        envelope = loads(stored)
        self.assertIsNone(inert.find_fault(envelope))
        self.assertEqual((envelope.email.subject, envelope.email.to), ("é", ["b"]))
        self.assertEqual(envelope.created, CREATED)
