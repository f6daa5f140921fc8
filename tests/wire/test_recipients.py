"""Recipients: each has an outcome of its own, none gets a message twice, none is forgotten."""

from __future__ import annotations

import smtplib
from collections import Counter
from contextlib import redirect_stderr
from io import StringIO
from itertools import product
from typing import Any

from django.core.mail import EmailMessage
from django.test import override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import message
from tests.smtp import by_recipient, in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase

REPLIES = {"ok": "250 ok", "4xx": "450 later", "5xx": "550 unknown"}
NAMES = ("one@example.com", "two@example.com", "three@example.com")


#: The replies to three recipients; what becomes of each where MAIL_QUEUE_RETRY_REJECTED is True, and where it is False.
COMBINATIONS = """
ok  ok  ok    sent      sent      sent        sent      sent      sent
ok  ok  4xx   sent      sent      requeued    sent      sent      requeued
ok  ok  5xx   sent      sent      discarded   sent      sent      discarded
ok  4xx ok    sent      requeued  sent        sent      requeued  sent
ok  4xx 4xx   sent      requeued  requeued    sent      requeued  requeued
ok  4xx 5xx   sent      requeued  discarded   sent      requeued  discarded
ok  5xx ok    sent      discarded sent        sent      discarded sent
ok  5xx 4xx   sent      discarded requeued    sent      discarded requeued
ok  5xx 5xx   sent      discarded discarded   sent      discarded discarded
4xx ok  ok    requeued  sent      sent        requeued  sent      sent
4xx ok  4xx   requeued  sent      requeued    requeued  sent      requeued
4xx ok  5xx   requeued  sent      discarded   requeued  sent      discarded
4xx 4xx ok    requeued  requeued  sent        requeued  requeued  sent
4xx 4xx 4xx   requeued  requeued  requeued    requeued  requeued  requeued
4xx 4xx 5xx   requeued  requeued  requeued    requeued  requeued  discarded
4xx 5xx ok    requeued  discarded sent        requeued  discarded sent
4xx 5xx 4xx   requeued  requeued  requeued    requeued  discarded requeued
4xx 5xx 5xx   requeued  requeued  requeued    requeued  discarded discarded
5xx ok  ok    discarded sent      sent        discarded sent      sent
5xx ok  4xx   discarded sent      requeued    discarded sent      requeued
5xx ok  5xx   discarded sent      discarded   discarded sent      discarded
5xx 4xx ok    discarded requeued  sent        discarded requeued  sent
5xx 4xx 4xx   requeued  requeued  requeued    discarded requeued  requeued
5xx 4xx 5xx   requeued  requeued  requeued    discarded requeued  discarded
5xx 5xx ok    discarded discarded sent        discarded discarded sent
5xx 5xx 4xx   requeued  requeued  requeued    discarded discarded requeued
5xx 5xx 5xx   requeued  requeued  requeued    discarded discarded discarded
"""


class CombinationTests(ScriptedTestCase):
    """All 27 combinations of accepted, 4xx and 5xx over three recipients; then the server takes everybody."""

    def check(self, replies: list[str], outcomes: list[str]) -> None:
        script = by_recipient({name: REPLIES[reply] for name, reply in zip(NAMES, replies, strict=True)})
        sent, requeued, discarded = (
            [name for name, outcome in zip(NAMES, outcomes, strict=True) if outcome == word]
            for word in ("sent", "requeued", "discarded")
        )
        self.serve(script, extensions=self.extensions)
        self.log.unlink(missing_ok=True)
        self.enqueue("a", to=NAMES)
        (self.drain if replies == ["ok", "ok", "ok"] else self.failing_drain)()
        self.assertEqual(self.smtp.deliveries, dict.fromkeys(sent, 1))
        self.assertEqual(
            [line.partition("To:")[2].partition(". Id: ")[0] for line in self.discards()],
            [f"{name}. Error: 550 unknown" for name in discarded],
        )
        self.assertEqual(len(self.queue), bool(requeued))
        self.smtp.script = lambda step, argument: None
        self.drain()
        self.assertEqual(self.smtp.deliveries, dict.fromkeys(sent + requeued, 1))
        headers = {(stored.message["To"], stored.message["Message-ID"]) for stored in self.smtp.stored}
        self.assertEqual([to for to, _ in headers], [", ".join(NAMES)] if sent or requeued else [])
        # Nobody was accepted, and a doubt is left: it is tried once without pipelining.
        again = bool(self.extensions) and "ok" not in replies and "4xx" in replies
        self.assertEqual((len(self.queue), self.smtp.connections), (0, 1 + bool(requeued) + again))

    def test_all(self) -> None:
        rows = [line.split() for line in COMBINATIONS.strip().splitlines()]
        self.assertEqual(len(rows), 27)
        for self.extensions, retry_rejected in product(([], PIPELINING), (True, False)):
            for row in rows:
                with (
                    self.subTest(row=row, extensions=self.extensions, retry_rejected=retry_rejected),
                    override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected),
                ):
                    self.check(row[:3], row[3:6] if retry_rejected else row[6:])


class PartlyDeliveredTests(ScriptedTestCase):
    def test_report_counts_a_message_once(self) -> None:
        for replies, expected in (
            ({NAMES[1]: "550 5.1.1 no"}, (1, 0, 0)),
            ({NAMES[1]: "450 later"}, (0, 1, 0)),
            ({NAMES[1]: "450 later", NAMES[2]: "550 5.1.1 no"}, (0, 1, 0)),
        ):
            with self.subTest(replies=replies):
                self.serve(by_recipient(replies))
                self.enqueue("a", to=NAMES)
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued, report.discarded), expected)
                self.queue.read_many(9)

    def test_refused_for_good_when_others_have_it_is_final(self) -> None:
        self.serve(in_turn(RCPT=[None, "450 later", "550 5.1.1 gone"]))
        self.enqueue("a", to=NAMES[:2])
        self.failing_drain()
        self.assertEqual(self.failing_drain().discarded, 1)
        self.assertIn(f"To:{NAMES[1]}. Error: 550 5.1.1 gone", self.discards()[0])
        self.assertEqual(len(self.queue), 0)

    def test_each_drain_sends_to_the_recipients_left(self) -> None:
        self.serve(in_turn(RCPT=[None, "450 later", "450 later", "450 later", None, None]))
        self.enqueue("a", to=NAMES)
        self.failing_drain()
        self.failing_drain()
        self.assertEqual(self.left()[0]["remaining"], [NAMES[1]])
        self.drain()
        self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(NAMES, 1)))

    def test_expired_recipient_is_logged_with_its_own_reply(self) -> None:
        self.serve(by_recipient({NAMES[0]: "550 unknown", NAMES[1]: "450 later"}))
        self.enqueue("a", to=NAMES)
        self.failing_drain(expire=0)
        self.assertEqual(
            [line.partition("To:")[2].partition(". Id: ")[0] for line in self.discards()],
            [f"{NAMES[0]}. Error: 550 unknown", f"{NAMES[1]}. Error: 450 later"],
        )
        self.assertEqual((len(self.queue), self.smtp.deliveries), (0, {NAMES[2]: 1}))

    def test_server_that_hangs_up_among_the_recipients_has_refused_no_more_than_it_said(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions), override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
                self.serve(in_turn(RCPT=["550 unknown", None, "421 closing"]), extensions=extensions)
                self.enqueue("a", to=[*NAMES, "four@example.com"])
                self.assertEqual(self.failing_drain().sent, 1)
                self.assertEqual(self.smtp.deliveries, dict.fromkeys([*NAMES[1:], "four@example.com"], 1))
                self.assertEqual(self.smtp.connections, 2)

    def test_message_that_is_refused_after_its_recipients_goes_to_all_again(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                self.serve(in_turn(RCPT=[None, "450 later", None] * 2, dot=["451 later"] * 2), extensions=extensions)
                self.enqueue("a", to=NAMES)
                self.failing_drain()
                self.assertNotIn("remaining", self.left()[0])
                self.smtp.script = lambda step, argument: None
                self.drain()
                self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(NAMES, 1)))

    def test_log_that_cannot_be_written_keeps_the_recipient(self) -> None:
        self.serve(by_recipient({NAMES[0]: "550 unknown"}))
        self.enqueue("a", to=NAMES)
        with override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.directory)), redirect_stderr(StringIO()):
            self.assertEqual(self.failing_drain().requeued, 1)
        self.assertEqual(self.left()[0]["remaining"], [NAMES[0]])

    def test_blind_copies_stay_blind(self) -> None:
        self.serve(by_recipient({NAMES[2]: "450 later"}))
        original = EmailMessage("a", "Body", "from@example.com", [NAMES[0]], cc=[NAMES[1]], bcc=[NAMES[2]])
        self.backend().send_messages([original])
        self.failing_drain()
        self.smtp.script = lambda step, argument: None
        self.drain()
        first, second = self.smtp.stored
        self.assertEqual((first.recipients, second.recipients), (NAMES[:2], (NAMES[2],)))
        for stored in (first, second):
            self.assertEqual((stored.message["To"], stored.message["Cc"]), NAMES[:2])
            self.assertNotIn("Bcc", stored.message)


class AddressTests(ScriptedTestCase):
    def outcome(self, recipients: list[str], refused: dict[str, str], **kwargs: Any) -> list[str]:
        """Deliver in two drains; the refused are refused in the first. Give who was kept in between."""
        self.serve(by_recipient(refused), **kwargs)
        self.enqueue("a", to=recipients)
        self.failing_drain()
        (kept,) = self.left()
        self.smtp.script = lambda step, argument: None
        self.drain()
        self.assertEqual(len(self.queue), 0)
        return list(kept.get("remaining", []))

    def test_same_address_twice_is_one_recipient(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                kept = self.outcome(
                    ["b@example.com", "b@example.com", "a@example.com"],
                    {"b@example.com": "450 later"},
                    extensions=extensions,
                )
                self.assertEqual(
                    (kept, self.smtp.deliveries), (["b@example.com"], {"a@example.com": 1, "b@example.com": 1})
                )

    def test_same_address_twice_refused_is_nobody_accepted(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions), override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
                self.outcome(
                    ["b@example.com", "B <b@example.com>"], {"b@example.com": "450 later"}, extensions=extensions
                )
                self.assertEqual(self.smtp.deliveries, {"b@example.com": 1})
        self.assertEqual(self.discards(), [])

    def test_domain_that_is_encoded(self) -> None:
        kept = self.outcome(["to@bücher.example", "a@example.com"], {"to@xn--bcher-kva.example": "450 later"})
        self.assertEqual(kept, ["to@bücher.example"])
        self.assertEqual(self.smtp.deliveries, {"a@example.com": 1, "to@xn--bcher-kva.example": 1})

    def test_display_names(self) -> None:
        kept = self.outcome(["Äda <b@example.com>", '"B, C" <a@example.com>'], {"b@example.com": "450 later"})
        self.assertEqual(
            (kept, self.smtp.deliveries), (["Äda <b@example.com>"], {"a@example.com": 1, "b@example.com": 1})
        )

    def test_message_whose_recipients_change_each_time_they_are_asked_for(self) -> None:
        self.serve(by_recipient({"b@example.com": "450 later"}))
        self.backend().send_messages([Fickle("a", "Body", "from@example.com", ["a@example.com", "b@example.com"])])
        self.failing_drain()
        self.assertEqual(self.left()[0]["remaining"], ["b@example.com"])

    def test_answers_of_a_site_s_own_class_are_not_needed(self) -> None:
        self.serve(by_recipient({"b@example.com": "550 5.1.1 no"}))
        self.backend().send_messages([message("a", ["b@example.com"])])
        with override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
            self.assertEqual(self.failing_drain(self.backend(SiteBackend)).discarded, 1)


class Fickle(EmailMessage):
    """Its recipients are asked for by Django, and by us."""

    def recipients(self) -> list[str]:
        self.asked = getattr(self, "asked", 0) + 1
        return super().recipients()[: 2 if self.asked < 3 else 1]


class SiteBackend(QueuedEmailBackend):
    connection_class = type("SiteSMTP", (smtplib.SMTP,), {})
