"""Attacks by someone who can write to the queue: they must execute nothing, change nothing and stop no drain."""

from __future__ import annotations

import copyreg
import os
import pickle
import sys
import tempfile
import time
import traceback
import tracemalloc
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.core.mail import EmailMessage
from django.test import SimpleTestCase

from mailqueue_backend.envelope import Envelope, loads
from mailqueue_backend.envelope.legacy.bounds import DEPTH_LIMIT
from mailqueue_backend.envelope.legacy.opcodes import OPCODE_LIMIT, SIZE_LIMIT
from mailqueue_backend.errors import UnknownClass, Unreadable
from tests.unit import inert
from tests.unit.pickles import (
    CREATED,
    EMPTY_DICT,
    EMPTY_LIST,
    EMPTY_TUPLE,
    MARK,
    MESSAGE,
    NONE,
    PYTHON3,
    STOP,
    built,
    called,
    data,
    dotted,
    mapping,
    members,
    message,
    name,
    payload,
    sequence,
    text,
    with_body,
)

#: Seconds of processor time: far more than a payload takes under coverage, far less than a successful attack.
LIMIT = 2
#: Part of the attacks' payloads; no error may contain it.
CANARY = "canary"
LAZY = name("django.utils.functional", "_lazy_proxy_unpickle")
STR = name("builtins", "str")
#: Instantiates the class on the stack.
NEW = EMPTY_TUPLE + b"\x81"
#: 2**40 empty tuples.
DOUBLED = EMPTY_TUPLE + b"q\x00" + b"".join(b"h%c\x86q%c" % (number, number + 1) for number in range(40))
GETTEXT = name("django.utils.translation", "gettext")


class AttackTestCase(SimpleTestCase):
    """Check after each test that the classes of which messages consist have not changed."""

    def setUp(self) -> None:
        before = inert.snapshot_classes()
        self.addCleanup(lambda: self.assertEqual(inert.snapshot_classes(), before))

    def assertUnreadable(self, stored: bytes) -> str:
        with self.assertRaises(Unreadable) as caught:
            loads(stored)
        self.assertNotIsInstance(caught.exception, UnknownClass)
        self.assertNotIn(CANARY, "".join(traceback.format_exception(caught.exception)))
        return str(caught.exception)

    def assertPlain(self, stored: bytes) -> Envelope:
        envelope = loads(stored)
        self.assertIsNone(inert.find_fault(envelope))
        return envelope


class PlainMessageTests(AttackTestCase):
    def test_message_assembled_from_opcodes_is_read(self) -> None:
        envelope = self.assertPlain(payload(campaign=text("spring")))
        self.assertEqual(envelope.email.subject, "S")
        self.assertEqual(envelope.extra, {"campaign": "spring"})


class CallTests(AttackTestCase):
    def test_calls_nothing(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            mark = Path(directory, CANARY)
            for module in ("os", "posix", "nt"):
                for call in (
                    called(name(module, "mkdir"), text(str(mark))),
                    called(dotted(module, "mkdir"), text(str(mark))),
                    name(module, "mkdir") + members(text(str(mark))) + b"\x81",
                    name(module, "mkdir") + text(str(mark)) + b"\x85R0" + text("B"),
                ):
                    with self.subTest(module=module, call=call):
                        self.assertUnreadable(with_body(call))
                        self.assertUnreadable(payload(beside=call))
                        self.assertUnreadable(PYTHON3 + call + STOP)
            old = f"(dS'email'\n(S'{mark}'\nios\nmkdir\ns.".encode()
            self.assertUnreadable(old)
            self.assertUnreadable(old.replace(b"ios\nmkdir\n", b"cos\nmkdir\no"))
            self.assertFalse(mark.exists())

    def test_imports_no_module(self) -> None:
        self.assertUnreadable(payload(message(name("this", "s"))))
        self.assertUnreadable(payload(message(dotted("this", "s"))))
        self.assertNotIn("this", sys.modules)

    def test_follows_no_dots(self) -> None:
        for path in ("mimetypes.os.system", "EmailMessage.message", "settings.SECRET_KEY"):
            with self.subTest(path=path):
                self.assertUnreadable(with_body(called(dotted(MESSAGE.module, path), text("true"))))
                self.assertUnreadable(payload(message(dotted(MESSAGE.module, path))))

    def test_formats_no_lazy_text(self) -> None:
        function = name("django.utils.text", "_format_lazy")
        reach = text("{0.message.__globals__[settings].SECRET_KEY}")
        for arguments in (members(reach, name(*MESSAGE)), members(text("{}"), text(CANARY))):
            with self.subTest(arguments=arguments):
                reason = self.assertUnreadable(with_body(called(LAZY, function, arguments, EMPTY_DICT, STR)))
                self.assertNotIn(settings.SECRET_KEY, reason)

    def test_translates_plain_text_only(self) -> None:
        for function, arguments in (
            (name("os", "system"), members(text("true"))),
            (name("os", "gettext"), members(text("x"))),
            (name("django.utils.translation", "activate"), members(text("de"))),
            (name("django.utils.translation", "gettext_noop"), members(text("x"))),
            (GETTEXT, members(name("os", "system"))),
            (GETTEXT, members(sequence(text("x")))),
            (GETTEXT, members()),
            (GETTEXT, members(text("x"), text("y"))),
            (name("django.utils.translation", "ngettext"), members(text("x"), text("y"), text("z"))),
            (text("gettext"), members(text("x"))),
            (GETTEXT, text("x")),
        ):
            with self.subTest(function=function, arguments=arguments):
                self.assertUnreadable(with_body(called(LAZY, function, arguments, EMPTY_DICT, STR)))

    def test_class_of_a_site_is_unreadable(self) -> None:
        reason = self.assertUnreadable(payload(message(name("tests.wire.test_legacy_payloads", "Tagged"))))
        self.assertNotIn("Tagged", reason)

    def test_registered_extensions_and_persistent_objects_are_refused(self) -> None:
        copyreg.add_extension("django.core.mail.message", "EmailMessage", 0x51)
        self.addCleanup(copyreg.remove_extension, "django.core.mail.message", "EmailMessage", 0x51)
        for opcodes in (b"\x82\x51", b"\x83\x51\x00", b"\x84\x51\x00\x00\x00", b"Pid\n", text("id") + b"Q"):
            with self.subTest(opcodes=opcodes):
                self.assertUnreadable(payload(message(opcodes)))
                self.assertUnreadable(with_body(opcodes))
                self.assertUnreadable(b"(dS'email'\n" + opcodes + b"s.")


class ObjectTests(AttackTestCase):
    def test_class_is_not_patched(self) -> None:
        for patch in (
            name(*MESSAGE) + mapping(message=text("patched")) + b"b",
            name(*MESSAGE) + NONE + mapping(message=text("patched")) + b"\x86b",
            dotted(*MESSAGE) + mapping(message=text("patched")) + b"b",
        ):
            with self.subTest(patch=patch):
                self.assertUnreadable(with_body(patch))
                self.assertUnreadable(payload(beside=patch))
                self.assertUnreadable(payload(patch))
        self.assertTrue(callable(EmailMessage.message))

    def test_method_is_not_shadowed(self) -> None:
        for attribute in ("message", "recipients", "send", "attach", "__class__", "__dict__", "__reduce__", "__init__"):
            with self.subTest(attribute=attribute):
                self.assertUnreadable(payload(message(**{attribute: text("x")})))

    def test_method_of_a_mime_part_is_not_shadowed(self) -> None:
        for attribute in ("as_bytes", "get_payload", "walk", "__class__", "anything"):
            with self.subTest(attribute=attribute):
                part = built(name("email.mime.text", "MIMEText"), **{attribute: text("x")})
                self.assertIn("own", self.assertUnreadable(payload(message(attachments=sequence(part)))))

    def test_state_is_a_dict_and_is_set_once(self) -> None:
        for state in (text("x"), members(NONE, mapping(subject=text("x"))), sequence()):
            with self.subTest(state=state):
                self.assertUnreadable(payload(name(*MESSAGE) + NEW + state + b"b"))
        self.assertUnreadable(payload(message().replace(NEW, NEW + EMPTY_DICT + b"b", 1)))
        self.assertUnreadable(with_body(called(STR, text("x")) + mapping(message=text("x")) + b"b"))

    def test_two_strings_are_not_accepted_as_a_name(self) -> None:
        self.assertUnreadable(payload(message(members(*(text(part) for part in MESSAGE)))))

    def test_name_is_not_accepted_as_a_value(self) -> None:
        for part in (name(*MESSAGE), STR, name("datetime", "datetime"), GETTEXT):
            for attribute, value in (
                ("body", part),
                ("to", sequence(part)),
                ("extra_headers", mapping(X=part)),
                ("encoding", part),
                ("attachments", sequence(part)),
                ("tags", sequence(part)),
            ):
                with self.subTest(part=part, attribute=attribute):
                    self.assertUnreadable(payload(message(**{attribute: value})))

    def test_object_is_accepted_only_where_it_belongs(self) -> None:
        part = built(name("email.mime.text", "MIMEText"), _payload=text("x"))
        for attributes in (
            {"body": message()},
            {"body": part},
            {"tags": part},
            {"to": sequence(CREATED, part)},
            {"attachments": sequence(message())},
            {"alternatives": sequence(members(part, text("text/html")))},
        ):
            with self.subTest(attributes=attributes):
                self.assertUnreadable(payload(message(**attributes)))
        self.assertUnreadable(payload(part))
        self.assertUnreadable(payload(beside=message()))

    def test_mime_part_with_unexpected_attributes_is_refused(self) -> None:
        text_part, charset = name("email.mime.text", "MIMEText"), name("email.charset", "Charset")
        codecs = {"output_charset": NONE, "input_codec": NONE, "output_codec": NONE, "header_encoding": NONE}
        for attributes in (
            {"policy": built(name("email.policy", "EmailPolicy"))},
            {"policy": NONE},
            {"_charset": built(charset, input_charset=text("utf-8"), body_encoding=text("x"), **codecs)},
            {"_charset": built(charset, input_charset=text("é"), body_encoding=NONE, **codecs)},
            {"_charset": built(charset)},
            {"_headers": sequence(text("x"))},
            {"_headers": sequence(members(text("x"), built(name("email.header", "Header"))))},
            {"_payload": sequence(text("x"))},
        ):
            with self.subTest(attributes=attributes):
                self.assertUnreadable(payload(message(attachments=sequence(built(text_part, **attributes)))))

    def test_connection_is_dropped(self) -> None:
        for attribute in ("connection", "_connection"):
            envelope = self.assertPlain(payload(message(**{attribute: called(name("os", "getcwd"))})))
            self.assertEqual([vars(envelope.email).get(key) for key in ("connection", "_connection")], [None, None])

    def test_date_that_does_not_exist_is_refused(self) -> None:
        for packed in (
            b"\x07\xea\x0b\x20\x00\x00\x00\x00\x00\x00",
            b"\x07\xea\x0d\x01" + bytes(6),
            b"\xff" * 10,
            b"",
            b"x" * 11,
        ):
            with self.subTest(packed=packed):
                self.assertUnreadable(payload(created=called(name("datetime", "datetime"), data(packed))))

    def test_earliest_and_latest_datetime_do_no_harm(self) -> None:
        for packed in (b"\x00\x01\x01\x01" + bytes(6), b"\x27\x0f\x0c\x1f\x17\x3b\x3b\x0f\x42\x3f"):
            stored = payload(created=called(name("datetime", "datetime"), data(packed)))
            # Local time may be out of range.
            with self.subTest(packed=packed), self.settings(EMAIL_USE_LOCALTIME=True), suppress(Unreadable):
                self.assertPlain(stored)


class ExpenseTests(AttackTestCase):
    """Small payloads that would otherwise keep a drain busy for hours, or exhaust its memory."""

    def assertCheaplyUnreadable(self, stored: bytes) -> str:
        start = time.thread_time()
        reason = self.assertUnreadable(stored)
        self.assertLess(time.thread_time() - start, LIMIT)
        return reason

    def assertUnreadableInLittleMemory(self, stored: bytes) -> None:
        tracemalloc.start()
        self.addCleanup(tracemalloc.stop)
        self.assertUnreadable(stored)
        self.assertLess(tracemalloc.get_traced_memory()[1], 2**20)

    def test_memo_is_not_sized_by_a_number_in_the_payload(self) -> None:
        self.assertUnreadableInLittleMemory(b"\x80\x03Nr\xff\xff\xff\x02.")

    def test_lengths_in_the_payload_are_not_trusted(self) -> None:
        for opcodes in (
            b"X\xff\xff\xff\x7f",
            b"B\xff\xff\xff\x7f",
            b"T\xff\xff\xff\x7f",
            b"\x8d" + b"\xff" * 7 + b"\x7f",
            b"\x8e" + b"\xff" * 7 + b"\x7f",
            b"\x96" + b"\xff" * 7 + b"\x7f",
            b"\x8b\xff\xff\xff\x7f",
            b"\x95" + b"\xff" * 7 + b"\x7f",
        ):
            with self.subTest(opcodes=opcodes):
                self.assertUnreadableInLittleMemory(PYTHON3 + opcodes + b"x.")
                self.assertUnreadableInLittleMemory(opcodes + b"x.")

    def test_shared_parts_are_not_multiplied(self) -> None:
        for stored in (payload(beside=DOUBLED), payload(message(tags=DOUBLED)), payload(message(body=DOUBLED))):
            with self.subTest(stored=stored):
                self.assertIn("repeatedly", self.assertCheaplyUnreadable(stored))

    def test_shared_parts_are_not_hashed(self) -> None:
        self.assertCheaplyUnreadable(payload(beside=EMPTY_DICT + DOUBLED + NONE + b"s"))
        self.assertCheaplyUnreadable(payload(beside=EMPTY_DICT + MARK + DOUBLED + NONE + b"u"))

    def test_deep_nesting_is_refused_without_recursion(self) -> None:
        for depth in (DEPTH_LIMIT, OPCODE_LIMIT // 2, 2**20):
            with self.subTest(depth=depth):
                self.assertCheaplyUnreadable(payload(beside=EMPTY_TUPLE + b"\x85" * depth))
                self.assertCheaplyUnreadable(payload(beside=EMPTY_LIST * depth + b"a" * (depth - 1)))
                self.assertCheaplyUnreadable(payload(beside=EMPTY_DICT + EMPTY_TUPLE + b"\x85" * depth + b"Ns"))
                self.assertCheaplyUnreadable(payload(beside=b"(" * depth + b"t" * depth))

    def test_object_that_contains_itself_is_refused(self) -> None:
        for own in (
            payload(beside=EMPTY_LIST + b"q\x00h\x00a"),
            payload(message(tags=EMPTY_DICT + b"q\x00" + text("k") + b"h\x00s")),
            payload(name(*MESSAGE) + NEW + b"q\x00" + mapping(subject=b"h\x00") + b"b"),
            payload(
                name(*MESSAGE)
                + EMPTY_TUPLE
                + b"\x81q\x00"
                + message(attachments=sequence(members(text("f"), b"h\x00", text("message/rfc822"))))[
                    len(name(*MESSAGE)) + 2 :
                ]
            ),
        ):
            with self.subTest(own=own):
                self.assertCheaplyUnreadable(own)

    def test_big_part_is_not_attached_a_thousand_times(self) -> None:
        attachment = members(text("f"), b"h\x00", text("x/y"))
        email = message(attachments=sequence(*[attachment] * 1000))
        reason = self.assertCheaplyUnreadable(PYTHON3 + mapping(big=data(bytes(2**20)) + b"q\x00", email=email) + STOP)
        self.assertIn("grow", reason)

    def test_payload_beyond_the_size_limit_is_refused(self) -> None:
        self.assertIn("larger", self.assertUnreadable(payload(beside=data(bytes(SIZE_LIMIT)))))

    def test_payload_of_too_many_opcodes_is_refused(self) -> None:
        self.assertCheaplyUnreadable(payload(beside=sequence(*[NONE] * OPCODE_LIMIT)))

    def test_most_expensive_payloads_are_opened_in_time(self) -> None:
        room = OPCODE_LIMIT - 100
        for stored in (
            payload(beside=sequence(*[b"K\x01"] * room)),
            payload(beside=sequence(*[EMPTY_LIST] * room)),
            payload(
                beside=EMPTY_DICT + b"(" + b"".join(b"J%bN" % n.to_bytes(4, "little") for n in range(room // 2)) + b"u"
            ),
            payload(beside=sequence(*[text("x")] * room)),
        ):
            with self.subTest(stored=stored[:200]):
                start = time.thread_time()
                with suppress(Unreadable):
                    loads(stored)
                self.assertLess(time.thread_time() - start, LIMIT)

    def test_keys_do_not_collide(self) -> None:
        colliding = b"".join(b"\x8a\x0a" + (n * (2**61 - 1)).to_bytes(10, "little") + NONE for n in range(1, 20000))
        self.assertCheaplyUnreadable(payload(beside=EMPTY_DICT + b"(" + colliding + b"u"))

    def test_long_numbers_are_refused(self) -> None:
        limit = sys.get_int_max_str_digits()
        self.addCleanup(sys.set_int_max_str_digits, limit)
        sys.set_int_max_str_digits(0)
        for opcode in (b"I", b"L", b"F", b"g", b"p"):
            with self.subTest(opcode=opcode):
                self.assertCheaplyUnreadable(b"(dS'x'\n" + opcode + b"9" * 1000000 + b"\ns.")


class ShapeTests(AttackTestCase):
    def test_payload_that_is_no_pickle_is_refused(self) -> None:
        for stored in (b"", b".", b"\x80", b"\x80\x03", b"N.", b"plain text", b"\x00" * 64, b"\xff" * 64, b"<html>"):
            with self.subTest(stored=stored):
                self.assertUnreadable(stored)

    def test_truncated_payload_is_refused(self) -> None:
        whole = payload()
        for size in range(len(whole)):
            self.assertUnreadable(whole[:size])

    def test_bytes_after_the_end_are_refused(self) -> None:
        for more in (b".", b"\x00", b"MQB1", b"x" * 36):
            with self.subTest(more=more):
                self.assertUnreadable(payload() + more)

    def test_opcodes_of_python2_are_refused_in_python3(self) -> None:
        for opcodes in (b"I1\n", b"L1L\n", b"F1\n", b"S'x'\n", b"Vx\n", b"(d", b"(l", b"U\x01x", b"T\x01\x00\x00\x00x"):
            with self.subTest(opcodes=opcodes):
                self.assertUnreadable(with_body(opcodes))
        self.assertUnreadable(payload(b"(" + b"idjango.core.mail.message\nEmailMessage\n" + mapping() + b"b"))

    def test_opcodes_that_do_not_fit_together_are_refused(self) -> None:
        for opcodes in (
            b"a",
            b"e",
            b"s",
            b"u",
            b"b",
            b"R",
            b"\x81",
            b"\x93",
            b"t",
            b"\x87",
            b"h\x63",
            b"0",
            b"1",
            b"2",
            b"\x94",
        ):
            with self.subTest(opcodes=opcodes):
                self.assertUnreadable(PYTHON3 + opcodes + STOP)
                self.assertUnreadable(PYTHON3 + NONE + opcodes + STOP)

    def test_protocol_that_no_python_knows_is_refused(self) -> None:
        for protocol in (6, 255):
            with self.subTest(protocol=protocol):
                head = bytes((0x80, protocol))
                self.assertUnreadable(payload(head=head))
                self.assertUnreadable(payload(head=PYTHON3 + head))
        self.assertPlain(payload(head=b"\x80\x05"))

    def test_address_must_be_a_string(self) -> None:
        for address in (b"K\x05", b"G" + bytes(8), b"\x88", CREATED):
            for field in ("to", "cc", "bcc", "reply_to"):
                with self.subTest(field=field, address=address):
                    self.assertUnreadable(payload(message(**{field: sequence(text("a@example.com"), address)})))
            with self.subTest(field="from_email", address=address):
                self.assertUnreadable(payload(message(from_email=address)))
        self.assertPlain(payload(message(to=sequence(text("a@example.com"), NONE), from_email=NONE)))

    def test_message_must_have_what_every_message_has(self) -> None:
        for missing in ("subject", "body", "from_email", "to"):
            with self.subTest(missing=missing):
                stored = payload().replace(text(missing), text("x" * len(missing)))
                self.assertUnreadable(stored)

    def test_attributes_must_be_of_their_type(self) -> None:
        for attributes in (
            {"to": text("b@example.com")},
            {"to": NONE},
            {"cc": mapping()},
            {"subject": sequence(text("x"))},
            {"body": mapping()},
            {"extra_headers": sequence()},
            {"extra_headers": mapping(X=sequence())},
            {"attachments": text("x")},
            {"attachments": sequence(text("x"))},
            {"attachments": sequence(members(text("f")))},
            {"attachments": sequence(members(text("f"), NONE, text("x/y")))},
            {"attachments": sequence(members(text("f"), text("x"), text("x/y"), text("z")))},
            {"attachments": sequence(members(text("f"), text("x"), sequence()))},
            {"alternatives": sequence(members(text("x")))},
            {"content_subtype": NONE},
            {"encoding": sequence()},
        ):
            with self.subTest(attributes=attributes):
                self.assertUnreadable(payload(message(**attributes)))

    def test_envelope_must_hold_a_message_and_when_it_was_created(self) -> None:
        for stored in (
            payload(NONE),
            payload(text("x")),
            payload(created=NONE),
            payload(created=text(CANARY)),
            PYTHON3 + mapping(email=message()) + STOP,
            PYTHON3 + mapping(created=CREATED) + STOP,
            PYTHON3 + sequence(message(), CREATED) + STOP,
            PYTHON3 + message() + STOP,
        ):
            with self.subTest(stored=stored):
                self.assertUnreadable(stored)

    def test_pickle_of_any_other_object_is_refused(self) -> None:
        for value in (Path("x"), {1, 2}, frozenset(), bytearray(b"x"), 2**5000, complex(1), slice(1), os.stat, len):
            for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
                with self.subTest(value=value, protocol=protocol):
                    content = {"email": EmailMessage(), "created": datetime.now(), "beside": value}
                    self.assertUnreadable(pickle.dumps(content, protocol))
