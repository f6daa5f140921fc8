"""The policy on the wire: when a message is tried once more at once, and when a sender or a mailer has to wait."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from itertools import product
from typing import Any

from django.core.mail import EmailMessage
from django.test import override_settings

from tests import smtp
from tests.smtp import Action, Session, always, by_recipient, in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase
from tests.smtp.scripts import address_in

STEPS = ("MAIL", "RCPT", "DATA", "dot")
ME, OTHER, THIRD = "me@one.example", "other@one.example", "third@one.example"
LATER = "451 4.7.1 later"


class PolicyTestCase(ScriptedTestCase):
    def send(self, sender: str, *subjects: str, to: Iterable[str] = ("to@example.com",)) -> None:
        self.backend().send_messages([EmailMessage(subject, "Body", sender, list(to)) for subject in subjects])

    def attempts(self) -> list[int]:
        """Return how often each message that is left was tried, least first."""
        return sorted(kept.get("attempts", 0) for kept in self.left())


def by_sender(replies: dict[str, str]) -> smtp.Script:
    """Script the answers to MAIL by address."""
    return lambda step, argument: replies.get(address_in(argument)) if step == "MAIL" else None


class BlockedTests(PolicyTestCase):
    """The server wants another login, or TLS: it is asked once, and that is no message's fault."""

    REPLY = "530 5.7.0 Authentication required"

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_no_other_message_is_tried_and_none_is_given_up(self) -> None:
        for step, extensions in product(STEPS, ([], PIPELINING)):
            with self.subTest(step=step, extensions=extensions):
                self.serve(always(step, self.REPLY), extensions=extensions)
                self.enqueue("a", "b", "c")
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued, report.discarded), (0, 0, 0))
                self.assertEqual((self.smtp.connections, self.smtp.said("MAIL"), self.attempts()), (1, 1, [0, 0, 0]))
                self.assertEqual(len(self.lines), 1)
                self.assertRegex(self.lines[0], rf"^127\.0\.0\.1:\d+: {self.REPLY}\. 3 messages wait, the first since ")
                self.queue.read_many(3)
        self.assertEqual(self.discards(), [])

    def test_what_was_sent_before_is_sent(self) -> None:
        self.serve(in_turn(MAIL=[None, *[self.REPLY] * 2]))
        self.enqueue("a", "b", "c")
        report = self.failing_drain()
        self.assertEqual((report.sent, self.smtp.said("MAIL"), self.attempts()), (1, 2, [0, 0]))

    def test_expired_message_is_discarded(self) -> None:
        self.serve(always("MAIL", self.REPLY))
        self.enqueue("a", created=datetime(2020, 1, 1))
        self.assertEqual(self.failing_drain().discarded, 1)
        self.assertIn("Message Expired. Created:2020-01-01 00:00:00, Subject: a, ", self.discards()[0])
        self.assertIn(f" Error: {self.REPLY}. Id: ", self.discards()[0])

    def test_next_drain_asks_again(self) -> None:
        self.serve(in_turn(MAIL=[self.REPLY]))
        self.enqueue("a", "b")
        self.failing_drain()
        self.assertEqual(self.drain().sent, 2)


class SenderTests(PolicyTestCase):
    """Three messages of a sender that are refused alike: the others wait for the next drain."""

    def test_pauses_while_others_send(self) -> None:
        self.serve(by_sender({ME: LATER}))
        for number in range(5):
            self.send(ME, f"mine {number}")
            self.send(OTHER, f"other {number}")
        report = self.failing_drain()
        self.assertEqual((report.sent, self.attempts()), (5, [0, 0, 1, 1, 1]))
        (line,) = self.lines
        self.assertIn(f"{LATER} (mail from {ME}). 5 messages wait, the oldest since ", line)
        self.smtp.script = smtp.good
        self.assertEqual((self.drain().sent, set(self.smtp.copies.values())), (5, {1}))

    def test_is_tried_in_the_next_drain(self) -> None:
        self.serve(by_sender({ME: LATER}))
        self.send(ME, *"abcd")
        self.failing_drain()
        self.failing_drain()
        self.assertEqual(sum(self.attempts()), 6)

    def test_two_refusals_are_not_enough(self) -> None:
        self.serve(in_turn(MAIL=[LATER, LATER]))
        self.send(ME, *"abcde")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, len(self.lines)), (3, 2, 2))

    def test_message_that_is_accepted_in_between_clears_it(self) -> None:
        self.serve(always("MAIL", LATER))
        self.smtp.script = in_turn(MAIL=[LATER, LATER, None, LATER, LATER, LATER])
        self.send(ME, *"abcdef")
        report = self.failing_drain()
        # The connection has carried "c" when "d" is refused, which therefore is tried twice.
        self.assertEqual((report.sent, report.requeued), (2, 4))
        self.assertEqual(self.attempts(), [1, 1, 1, 1])

    def test_refusals_of_different_kinds_are_not_added(self) -> None:
        self.serve(in_turn(MAIL=["451 a", "452 b", "450 c", "451 a", "452 b", "450 c"]))
        self.send(ME, *"abcdef")
        self.assertEqual((self.failing_drain().requeued, self.attempts()), (6, [1] * 6))

    def test_recipients_of_one_domain_are_that_domain_s_fault(self) -> None:
        self.serve(lambda step, argument: LATER if step == "RCPT" and "@full." in argument else None)
        self.send(ME, *"abcd", to=["to@full.example"])
        self.send(ME, "e")
        report = self.failing_drain()
        self.assertEqual((report.sent, self.attempts()), (1, [1, 1, 1, 1]))

    def test_recipients_of_two_domains_are_not(self) -> None:
        self.serve(always("RCPT", LATER))
        for number in range(5):
            self.send(ME, str(number), to=[f"to@{number % 2}.example"])
        self.failing_drain()
        self.assertEqual(self.attempts(), [0, 0, 1, 1, 1])

    def test_refused_content_says_nothing_of_the_sender(self) -> None:
        for reply in ("554 spam", "550 5.7.1 spam"):
            with self.subTest(reply=reply):
                self.serve(always("dot", reply))
                self.send(ME, *"abcde")
                self.assertEqual((self.failing_drain().requeued, self.attempts()), (5, [1] * 5))
                self.queue.read_many(5)

    def test_dead_recipients_say_nothing_of_the_sender(self) -> None:
        self.serve(always("RCPT", "550 5.1.1 unknown"))
        for number in range(5):
            self.send(ME, str(number), to=[f"to@{number}.example"])
        self.assertEqual((self.failing_drain().requeued, self.attempts()), (5, [1] * 5))

    def test_expired_messages_of_a_paused_one_are_discarded(self) -> None:
        self.serve(by_sender({ME: LATER}))
        self.send(ME, *"abc")
        self.backend().send_messages([EmailMessage("d", "Body", ME, ["to@x.example"])], created=datetime(2020, 1, 1))
        self.assertEqual(self.failing_drain().discarded, 1)
        self.assertIn("Message Expired", self.discards()[0])


class TwoSendersTests(PolicyTestCase):
    """Two senders that pause: it is the mailer."""

    def test_block_the_mailer(self) -> None:
        self.serve(by_sender({ME: LATER, OTHER: LATER}))
        self.send(ME, *"abcd")
        self.send(OTHER, *"efgh")
        self.send(THIRD, "i")
        report = self.failing_drain()
        self.assertEqual((report.sent, self.attempts()), (0, [0, 0, 0, 1, 1, 1, 1, 1, 1]))
        (line,) = self.lines
        self.assertRegex(line, rf"^127\.0\.0\.1:\d+: {LATER}\. 9 messages wait, the first since ")

    def test_message_that_is_accepted_in_between_shows_that_it_works(self) -> None:
        self.serve(by_sender({ME: LATER, OTHER: LATER}))
        self.send(ME, *"abc")
        self.send(THIRD, "d")
        self.send(OTHER, *"efg")
        self.send(THIRD, "h")
        report = self.failing_drain()
        self.assertEqual((report.sent, self.attempts()), (2, [1] * 6))
        self.assertEqual([address in " ".join(self.lines) for address in (ME, OTHER)], [True, True])


class FourRefusalsTests(PolicyTestCase):
    """A server answers slowly after many errors: the client hangs up first."""

    def test_connection_is_closed_after_four_in_a_row(self) -> None:
        self.serve(in_turn(RCPT=["550 5.1.1 unknown"] * 5))
        self.enqueue(*"abcdef")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued), (1, 5))
        self.assertEqual([said.count("rcpt") for said in self.smtp.commands], [4, 2])
        self.assertEqual([said[-1] for said in self.smtp.commands], ["quit", "quit"])

    def test_refused_senders_count_too(self) -> None:
        self.serve(in_turn(MAIL=["552 5.3.4 too big"] * 4))
        self.enqueue(*"abcde")
        self.failing_drain()
        self.assertEqual([said.count("mail") for said in self.smtp.commands], [4, 1])

    def test_message_that_is_accepted_in_between_counts_anew(self) -> None:
        never = "550 5.1.1 unknown"
        self.serve(in_turn(RCPT=[never, never, never, None, never, never, never]))
        self.enqueue(*"abcdefgh")
        self.assertEqual((self.failing_drain().sent, self.smtp.connections), (2, 1))

    def test_recipients_of_a_message_that_others_have_do_not_count(self) -> None:
        dead = [f"{number}@dead.example" for number in range(6)]
        self.serve(by_recipient(dict.fromkeys(dead, "550 5.1.1 unknown")))
        self.enqueue("a", "b", to=[*dead, "to@example.com"])
        self.failing_drain()
        self.assertEqual((self.smtp.connections, self.smtp.copies), (1, {"a": 1, "b": 1}))


class RoomTests(PolicyTestCase):
    """A server takes so many recipients at a time: the rest goes at once, in transactions of its own."""

    ROOM = 50
    MANY = tuple(f"{number}@example.com" for number in range(120))

    def room(self, reply: str, dead: str = "") -> smtp.Script:
        taken = 0

        def script(step: str, argument: str) -> Action:
            nonlocal taken
            if step == "MAIL":
                taken = 0
            if step != "RCPT":
                return None
            if address_in(argument) == dead:
                return "550 5.1.1 unknown"
            taken += 1
            return reply if taken > self.ROOM else None

        return script

    def test_all_have_it_once_after_one_drain(self) -> None:
        for reply, extensions in product(("552 5.5.3 enough", "452 4.5.3 enough", "452 enough"), ([], PIPELINING)):
            with self.subTest(reply=reply, extensions=extensions):
                self.serve(self.room(reply), extensions=extensions)
                self.enqueue("a", to=self.MANY)
                with self.assertNoLogs("mailqueue_backend", "WARNING"):
                    report = self.drain()
                self.assertEqual((report.sent, report.requeued, len(self.queue)), (1, 0, 0))
                self.assertEqual(self.smtp.deliveries, dict.fromkeys(self.MANY, 1))
                self.assertEqual([len(stored.recipients) for stored in self.smtp.stored], [50, 50, 20])
                self.assertEqual(len({stored.content for stored in self.smtp.stored}), 1)
                self.assertEqual(self.smtp.connections, 1)

    def test_recipient_who_is_refused_for_good_is_given_up_once(self) -> None:
        self.serve(self.room("552 5.5.3 enough", dead="70@example.com"))
        self.enqueue("a", to=self.MANY)
        report = self.failing_drain()
        self.assertEqual((report.sent, report.recipients_given_up, len(self.discards())), (1, 1, 1))
        self.assertEqual(self.smtp.deliveries, dict.fromkeys(set(self.MANY) - {"70@example.com"}, 1))

    def test_rest_that_is_refused_stays_queued(self) -> None:
        self.serve(in_turn(RCPT=[None, "452 4.5.3 enough", LATER]))
        self.enqueue("a", to=["one@example.com", "two@example.com"])
        self.assertEqual(self.failing_drain().requeued, 1)
        self.assertEqual([(kept["remaining"], kept["attempts"]) for kept in self.left()], [(["two@example.com"], 1)])
        self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.smtp.deliveries, {"one@example.com": 1, "two@example.com": 1})

    def test_server_without_room_for_anybody_is_not_asked_for_ever(self) -> None:
        self.serve(always("RCPT", "452 4.5.3 enough"))
        self.enqueue("a", to=self.MANY[:3])
        self.assertEqual((self.failing_drain().requeued, self.smtp.said("MAIL")), (1, 1))


class HangUpTests(PolicyTestCase):
    """A server hangs up after so many errors: it is not asked again about those whom it has refused."""

    DEAD = tuple(f"{number}@dead.example" for number in range(45))
    LIVING = tuple(f"{number}@example.com" for number in range(10))

    def serve_limited(self, closing: Action, **kwargs: Any) -> None:
        """Hang up on a connection at the recipient that follows twenty errors."""
        errors: dict[Session, int] = {}

        def answer(session: Session) -> str:
            if errors.get(session, 0) >= 20:
                return smtp.say(closing)(session) if isinstance(closing, str) else smtp.fin(session)
            errors[session] = errors.get(session, 0) + 1
            return smtp.say("550 5.1.1 unknown")(session)

        def script(step: str, argument: str) -> Action:
            return answer if step == "RCPT" and "@dead." in argument else None

        self.serve(script, **kwargs)

    def test_others_have_it_at_once(self) -> None:
        # Replies to pipelined commands count only together.
        ways = (("421 too many errors", []), ("421 too many errors", PIPELINING), (smtp.fin, []))
        for closing, extensions in ways:
            with self.subTest(closing=closing, extensions=extensions):
                self.log.unlink(missing_ok=True)
                self.serve_limited(closing, extensions=extensions)
                self.enqueue("a", to=[*self.DEAD, *self.LIVING])
                report = self.failing_drain()
                self.assertEqual((report.sent, report.recipients_given_up), (1, 45))
                self.assertEqual((self.smtp.deliveries, self.smtp.connections), (dict.fromkeys(self.LIVING, 1), 3))
                given_up = [
                    line.partition("To:")[2].partition(". Error: 550 5.1.1 unknown.")[0] for line in self.discards()
                ]
                self.assertEqual(given_up, [*self.DEAD])

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_message_to_nobody_else_is_discarded(self) -> None:
        self.serve_limited("421 too many errors")
        self.enqueue("a", to=self.DEAD)
        self.assertEqual((self.failing_drain().discarded, len(self.discards()), len(self.queue)), (1, 45, 0))

    def test_server_that_refuses_nobody_and_hangs_up_each_time_is_left_alone(self) -> None:
        self.serve(always("RCPT", "421 closing"))
        self.enqueue("a", to=self.LIVING)
        self.assertEqual((self.failing_drain().requeued, self.smtp.connections), (1, 1))
        self.assertEqual((self.attempts(), "remaining" in self.left()[0]), ([1], False))


class NoPipeliningTests(PolicyTestCase):
    """PIPELINING is announced, and refused where it is used."""

    def serve_against_pipelining(self, step: str, reply: str) -> None:
        self.pipelined: list[bool] = []

        def note(session: Session) -> str:
            self.pipelined.append(bool(session._buffer))
            return smtp.say("250 ok")(session)

        def script(reached: str, argument: str) -> Action:
            if reached == "MAIL":
                return note
            return reply if reached == step and self.pipelined[-1] else None

        self.serve(script, extensions=PIPELINING)

    def test_mail_is_delivered_without_and_the_drain_stays_without(self) -> None:
        for step, reply in (("DATA", "503 5.5.1 improper pipelining"), ("RCPT", "550 no"), ("dot", "554 no")):
            with self.subTest(step=step):
                self.serve_against_pipelining(step, reply)
                self.enqueue("a", "b", "c")
                with self.assertNoLogs("mailqueue_backend", "WARNING"):
                    self.assertEqual(self.drain().sent, 3)
                self.assertEqual(self.smtp.copies, {"a": 1, "b": 1, "c": 1})
                self.assertEqual((self.pipelined, self.smtp.connections), ([True, False, False, False], 2))

    def test_next_drain_begins_anew(self) -> None:
        self.serve_against_pipelining("DATA", "503 5.5.1 improper pipelining")
        for _ in range(2):
            self.enqueue("a")
            self.assertEqual(self.drain().sent, 1)
        self.assertEqual(self.pipelined, [True, False, True, False])

    def test_where_it_makes_no_difference_one_message_has_shown_it(self) -> None:
        self.serve(always("dot", "554 spam"), extensions=PIPELINING)
        self.enqueue("a", "b", "c")
        report = self.failing_drain()
        self.assertEqual((report.requeued, self.smtp.connections, self.smtp.said("MAIL")), (3, 2, 4))
        self.assertEqual(self.attempts(), [1, 1, 1])


class UsedConnectionTests(PolicyTestCase):
    """A server that is enough of a connection, and says so in its own way."""

    def serve_limited(self, step: str, reply: str, messages: int = 2, **kwargs: Any) -> None:
        """Serve so many messages on each connection."""
        served: dict[Session, int] = {}

        def refuse(session: Session) -> str:
            if served.get(session, 0) >= messages:
                return smtp.say(reply)(session)
            return session.usual(session) if step != "dot" else take(session)

        def take(session: Session) -> str:
            served[session] = served.get(session, 0) + 1
            session.store()
            return smtp.say("250 stored")(session)

        self.serve(
            lambda reached, argument: {step: refuse, **({} if step == "dot" else {"dot": take})}.get(reached), **kwargs
        )

    def test_all_are_delivered_over_new_connections(self) -> None:
        replies = ("451 4.7.0 enough for one session", "421 4.7.0 enough", "550 5.7.1 enough", "554 enough")
        for step, reply, extensions in product(STEPS, replies, ([], PIPELINING)):
            with self.subTest(step=step, reply=reply, extensions=extensions):
                self.serve_limited(step, reply, extensions=extensions)
                self.enqueue(*"abcdef")
                with self.assertNoLogs("mailqueue_backend", "WARNING"):
                    self.assertEqual(self.drain().sent, 6)
                self.assertEqual((self.smtp.connections, set(self.smtp.copies.values())), (3, {1}))

    def test_message_that_is_refused_again_counts_one_attempt(self) -> None:
        self.serve(lambda step, argument: None)
        self.smtp.script = in_turn(DATA=[None, LATER, LATER])
        self.enqueue(*"abc")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.attempts()), (2, 1, [1]))
        self.assertEqual((self.smtp.connections, len(self.lines)), (2, 1))

    def test_refusal_that_a_new_connection_does_not_change_is_known_then(self) -> None:
        """Each message that is refused would else cost a connection, after each one that is accepted."""
        self.serve(lambda step, argument: LATER if step == "RCPT" and "bad" in argument else None)
        for number in range(4):
            self.enqueue(f"good {number}")
            self.enqueue(f"bad {number}", to=[f"bad{number}@example.com"])
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.smtp.connections), (4, 4, 2))
        self.assertEqual(self.attempts(), [1, 1, 1, 1])

    def test_lost_reply_to_the_message_is_not_tried_again_at_once(self) -> None:
        self.serve(in_turn(dot=[None, smtp.stored_then(smtp.fin)]))
        self.enqueue("a", "b")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, self.smtp.copies), (1, 1, {"a": 1, "b": 1}))


class WorkersTests(PolicyTestCase):
    """Several workers share what one of them has learned."""

    def test_server_that_wants_another_login_is_asked_once_by_each(self) -> None:
        self.serve(always("MAIL", BlockedTests.REPLY))
        self.enqueue(*map(str, range(60)))
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued, set(self.attempts()), len(self.lines)), (0, 0, {0}, 1))
        self.assertLessEqual(self.smtp.said("MAIL"), 3)

    def test_paused_sender_is_tried_no_more_by_any(self) -> None:
        self.serve(by_sender({ME: LATER}))
        for number in range(30):
            self.send(ME, f"mine {number}")
            self.send(OTHER, f"other {number}")
        report = self.failing_drain()
        self.assertEqual((report.sent, len(self.queue)), (30, 30))
        # When the third is refused, each of the others may have one under way.
        self.assertLessEqual(sum(self.attempts()), 3 + 2)
