"""Pipelining (RFC 2920): what is sent in one write, what the answers mean, and what happens when they do not fit."""

from __future__ import annotations

import re
import smtplib
from collections import Counter
from unittest import mock

from django.core.mail import EmailMessage
from django.test import override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.transport.connection import CHUNK
from tests import smtp
from tests.cases import message
from tests.smtp import Session, always, by_recipient, in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase

THREE = ("one@example.com", "two@example.com", "three@example.com")


def both(first: smtp.Script, second: smtp.Script) -> smtp.Script:
    return lambda step, argument: first(step, argument) or second(step, argument)


class PipelineTestCase(ScriptedTestCase):
    def serve_pipelining(self, script: smtp.Script = lambda step, argument: None) -> None:
        """Serve, and note how many commands stand behind each MAIL in the same write."""
        self.behind: list[list[str]] = []

        def note(session: Session) -> str:
            self.behind.append([line[:4].upper() for line in bytes(session._buffer).decode().splitlines()])
            return smtp.say("503 nested MAIL" if session._recipients is not None else "250 ok")(session)

        self.serve(both(script, always("MAIL", note)), extensions=PIPELINING)

    def pipelined(self) -> list[bool]:
        """Return for each message whether it was."""
        return [commands[-1:] == ["DATA"] for commands in self.behind]


class OneWriteTests(PipelineTestCase):
    def test_mail_recipients_and_data_go_in_one_write(self) -> None:
        self.serve_pipelining()
        self.enqueue("a", "b", to=THREE)
        self.assertEqual(self.drain().sent, 2)
        self.assertEqual(self.behind, [["RCPT", "RCPT", "RCPT", "DATA"]] * 2)
        self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(THREE, 2)))

    def test_server_that_does_not_announce_it(self) -> None:
        self.serve_pipelining()
        self.smtp.extensions.clear()
        self.enqueue("a")
        self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.behind, [[]])

    def test_size_is_said(self) -> None:
        sizes: list[str] = []
        self.serve(lambda step, argument: sizes.append(argument) if step == "MAIL" else None, extensions=PIPELINING)
        self.enqueue("a")
        self.drain()
        (size,) = (int(argument.partition(" size=")[2]) for argument in sizes)
        # Django < 6.0: the last line may lack its end.
        self.assertIn(len(self.smtp.stored[0].content) - size, (0, 2))

    def test_address_with_a_newline_is_not_a_command(self) -> None:
        self.serve(extensions=PIPELINING)
        self.enqueue("a", "b")
        with mock.patch("smtplib.quoteaddr", side_effect=["<to@example.com>", "<x>\r\nRSET", *["<y@example.com>"] * 9]):
            report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.smtp.said("RSET")), (1, 1, 0))

    def test_more_recipients_than_fit_are_sent_plainly(self) -> None:
        many = [f"{number}@example.com" for number in range(150)]
        refused = both(by_recipient({"7@example.com": "550 5.1.1 no"}), self.only(100))
        self.serve_pipelining(refused)
        self.enqueue("a", to=many)
        self.assertEqual(self.failing_drain().sent, 1)
        # Those for whom there was no room are few enough to be pipelined.
        self.assertEqual(self.pipelined(), [False, True])
        self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(set(many) - {"7@example.com"}, 1)))
        self.assertEqual(len(self.discards()), 1)

    def only(self, room: int) -> smtp.Script:
        return in_turn(RCPT=[*[None] * (room - 1), *["452 too many recipients"] * 50])


class RefusalTests(PipelineTestCase):
    def test_each_reply_belongs_to_its_command(self) -> None:
        self.serve_pipelining(by_recipient({THREE[0]: "550 unknown", THREE[2]: "451 later"}))
        self.enqueue("a", to=THREE)
        self.assertEqual(self.failing_drain().requeued, 1)
        self.assertEqual(self.smtp.deliveries, {THREE[1]: 1})
        self.assertEqual([kept["remaining"] for kept in self.left()], [[THREE[2]]])
        self.assertIn(f"To:{THREE[0]}. Error: 550 unknown", self.discards()[0])

    def test_nobody_is_accepted(self) -> None:
        for data in (None, "354 go on all the same", "554 nobody"):
            with self.subTest(data=data):
                self.serve_pipelining(in_turn(RCPT=["550 5.1.1 no"] * 3, DATA=[data]))
                self.enqueue("a", to=THREE)
                self.enqueue("b")
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued), (1, 1))
                self.assertEqual((self.smtp.copies, self.smtp.connections), ({"b": 1}, 1))
                self.assertIn("550", self.left()[0]["last_error"])
                self.assertEqual(self.drain().sent, 1)

    def test_sender_is_refused(self) -> None:
        for data in (None, "354 go on all the same"):
            with self.subTest(data=data):
                self.serve_pipelining(in_turn(MAIL=["552 not you"], RCPT=["503 no MAIL"], DATA=[data]))
                self.enqueue("a", "b")
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued), (1, 1))
                self.assertEqual((self.smtp.copies, self.smtp.connections), ({"b": 1}, 1))
                self.assertIn("not you", self.left()[0]["last_error"])
                self.assertEqual(self.drain().sent, 1)

    def test_hang_up_at_the_lone_dot_does_not_hide_the_refusal(self) -> None:
        self.serve_pipelining(in_turn(RCPT=["550 5.1.1 no"], DATA=["354 go on"], dot=[smtp.fin]))
        self.enqueue("a")
        with override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
            self.assertEqual(self.failing_drain().discarded, 1)

    def test_message_is_refused(self) -> None:
        for steps, connections in (({"DATA": ["554 no"] * 2}, 2), ({"dot": ["552 5.3.4 too big"]}, 1)):
            with self.subTest(steps=steps):
                self.serve_pipelining(in_turn(**steps))
                self.enqueue("a", "b")
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued, self.smtp.connections), (1, 1, connections))
                self.assertEqual(self.drain().sent, 1)


class OutOfStepTests(PipelineTestCase):
    """The answers do not fit: the message goes plainly over a new connection, and so does the rest of the drain."""

    def assertGoesOnPlainly(self, script: smtp.Script) -> None:
        self.serve_pipelining(script)
        self.enqueue("a", "b")
        self.enqueue("c", to=THREE)
        self.assertEqual(self.drain(self.backend(timeout=1)).sent, 3)
        self.assertEqual(self.smtp.copies, {"a": 1, "b": 1, "c": 1})
        self.assertEqual(self.pipelined(), [True, False, False, False])
        self.assertEqual(self.smtp.connections, 2)

    def test_surplus_reply(self) -> None:
        # In plain sessions the server behaves.
        for step, good in (("RCPT", "250 ok"), ("DATA", "354 go on")):
            with self.subTest(step=step):
                self.assertGoesOnPlainly(in_turn(**{step: [f"{good}\r\n{good}"]}))

    def test_missing_reply(self) -> None:
        for step in ("RCPT", "DATA"):
            with self.subTest(step=step):
                self.assertGoesOnPlainly(in_turn(**{step: [lambda session: "250 but not said"]}))

    def test_server_that_forgets_what_stands_behind_mail(self) -> None:
        def forget(session: Session) -> str:
            session._buffer.clear()
            return smtp.say("250 ok")(session)

        self.serve(in_turn(MAIL=[forget]), extensions=PIPELINING)
        self.enqueue("a", "b")
        self.assertEqual(self.drain(self.backend(timeout=1)).sent, 2)
        self.assertEqual((self.smtp.connections, self.smtp.copies), (2, {"a": 1, "b": 1}))

    def test_reply_that_belongs_to_another_command(self) -> None:
        for steps in ({"DATA": ["250 ok"]}, {"RCPT": ["354 go on"]}, {"MAIL": ["354 go on"]}):
            with self.subTest(steps=steps):
                self.serve(in_turn(**steps), extensions=PIPELINING)
                self.enqueue("a")
                self.assertEqual(self.drain().sent, 1)
                self.assertEqual((self.smtp.connections, self.smtp.copies), (2, {"a": 1}))

    def test_server_that_speaks_before_the_end_of_the_message(self) -> None:
        self.serve(in_turn(body=["552 too big for me"]), extensions=PIPELINING)
        big = message("a")
        big.attach("big.bin", bytes(3_000_000), "application/octet-stream")
        self.backend().send_messages([big])
        self.assertEqual(self.drain().sent, 1)
        self.assertEqual((self.smtp.connections, self.smtp.copies), (2, {"a": 1}))

    def test_all_workers_go_on_plainly(self) -> None:
        def take(session: Session) -> str:
            while self.smtp.connections < 2:
                pass
            session.store()
            return smtp.say("250 stored")(session)

        self.serve_pipelining(in_turn(dot=[take], DATA=[None, None, smtp.fin]))
        self.enqueue(*map(str, range(40)))
        self.assertEqual(self.drain().sent, 40)
        # At the failure each of the two may have one on its way.
        self.assertLessEqual(sum(self.pipelined()), 5)

    def test_next_drain_begins_anew(self) -> None:
        self.serve_pipelining(in_turn(RCPT=[smtp.fin]))
        backend = self.backend()
        for name in "ab":
            self.enqueue(name)
            self.assertEqual(self.drain(backend).sent, 1)
        self.assertEqual(self.pipelined(), [True, False, True])

    def test_second_failure_in_a_row_is_the_message_s(self) -> None:
        self.serve(always("RCPT", smtp.fin), extensions=PIPELINING)
        self.enqueue("a")
        self.assertEqual(self.failing_drain().requeued, 1)
        self.assertEqual((self.smtp.connections, self.left()[0]["attempts"]), (2, 1))


class AfterTheDotTests(PipelineTestCase):
    """Now the message may have arrived: it is tried again all the same, and that is said."""

    def test_surplus_reply(self) -> None:
        def take(session: Session) -> str:
            session.store()
            return smtp.say("250 stored\r\n250 stored")(session)

        self.serve_pipelining(in_turn(dot=[take]))
        self.enqueue("a", "b")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.smtp.connections), (1, 1, 2))
        self.assertTrue(any("it may arrive twice" in line for line in self.lines))
        # That is no fault of pipelining.
        self.assertEqual(self.pipelined(), [True, True])

    def test_lost_reply(self) -> None:
        self.serve_pipelining(in_turn(dot=[smtp.stored_then(smtp.fin)]))
        self.enqueue("a")
        self.failing_drain()
        self.assertTrue(any("it may arrive twice" in line for line in self.lines))
        self.drain()
        first, second = self.smtp.stored
        self.assertEqual(first.message["Message-ID"], second.message["Message-ID"])
        self.assertEqual(first.content, second.content)


class OtherClassesTests(PipelineTestCase):
    def test_patched_smtplib_wins(self) -> None:
        self.serve_pipelining()
        self.enqueue("a")
        with mock.patch.object(smtplib, "SMTP", type("Patched", (smtplib.SMTP,), {})):
            self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.pipelined(), [False])

    def test_mock_in_smtplib_s_place_wins(self) -> None:
        self.serve()
        self.enqueue("a", "b")
        with mock.patch.object(smtplib, "SMTP") as smtp:
            self.assertEqual(self.drain().sent, 2)
        self.assertEqual((smtp.call_count, smtp.return_value.sendmail.call_count), (1, 2))
        self.assertEqual(self.smtp.connections, 0)

    def test_class_of_a_site_wins(self) -> None:
        class Backend(QueuedEmailBackend):
            connection_class = type("SiteSMTP", (smtplib.SMTP,), {})

        self.serve_pipelining()
        self.enqueue("a")
        self.assertEqual(self.drain(self.backend(Backend)).sent, 1)
        self.assertEqual(self.pipelined(), [False])

    def test_class_that_can_hardly_anything_does(self) -> None:
        sent: list[str] = []

        class Bare:
            def __init__(self, host: str, port: int, **kwargs: object) -> None: ...

            def sendmail(self, sender: str, recipients: list[str], content: bytes) -> None:
                sent.extend(recipients)

            def quit(self) -> None: ...

        self.serve()
        self.enqueue("a", "b")
        backend = self.backend(type("Backend", (QueuedEmailBackend,), {"connection_class": Bare}))
        self.assertEqual(self.drain(backend).sent, 2)
        self.assertEqual(sent, ["to@example.com"] * 2)


class BodyTests(PipelineTestCase):
    """The message arrives as it is, whatever stands at the beginning of a line and wherever it is cut."""

    def test_body_arrives_unchanged(self) -> None:
        bodies = {
            "dots": ".\r\n..\r\n.a\r\n...\r\n",
            "no end of line": ".",
            "one line": "x" * (3 * CHUNK),
            "many dots": ".\n" * CHUNK,
            "dots where it is cut": "".join("." * (length % 70 + 1) + "\n" for length in range(4000)),
        }
        for extensions in (PIPELINING, []):
            for name, body in bodies.items():
                with self.subTest(name, extensions=extensions):
                    self.serve(extensions=extensions)
                    self.backend().send_messages([EmailMessage(name, body, "from@example.com", ["to@example.com"])])
                    self.assertEqual(self.drain().sent, 1)
                    (stored,) = self.smtp.stored
                    received = stored.message.get_payload(decode=True)
                    assert isinstance(received, bytes)
                    lines = re.sub(r"\r?\n", "\n", body).rstrip("\n")
                    self.assertEqual(received.decode().replace("\r\n", "\n").rstrip("\n"), lines)
