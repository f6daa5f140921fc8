"""The policy: the possible results of an attempt, and their consequences."""

from __future__ import annotations

import copy
import re
from contextlib import redirect_stderr
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from django.core.mail import EmailMessage
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery.addressing import addressed_to, names_of
from mailqueue_backend.delivery.policy import Attempt, Judgement, Refusal, judge, lines_of
from mailqueue_backend.delivery.report import DOQUEUE, NOQUEUE, SENT, Outcome
from mailqueue_backend.delivery.verdict import Reply
from mailqueue_backend.envelope import ERROR_LENGTH, META_KEY, Meta
from tests.cases import DiscardLogMixin, message
from tests.smtp.cases import DELIVERY

NOW = datetime(2026, 1, 2)
NAMES = ["a@example.com", "b@example.com", "c@example.com"]
LATER = Refusal("b@example.com", Reply("RCPT", 450, "later"))
NEVER = Refusal("c@example.com", Reply("RCPT", 550, "5.1.1 never"))
BUSY, TOO_BIG = Reply("dot", 451, "busy"), Reply("dot", 552, "5.3.4 too big")


class PolicyTestCase(DiscardLogMixin):
    def setUp(self) -> None:
        super().setUp()
        self.fields: dict[str, Any] = {"created": NOW}
        self.meta = Meta("0123456789ab")
        self.message = message("a", NAMES)

    def judge(self, attempt: Attempt, expired: bool) -> Outcome:
        self.judgement = judge(
            self.message, self.meta, self.fields, NOW + timedelta(seconds=1 if expired else -1), attempt
        )
        return self.judgement.outcome

    def failed(self, error: object, reply: Reply | None = None, expired: bool = False, reached: bool = True) -> Outcome:
        return self.judge(Attempt(NAMES, error=error, reply=reply, reached=reached), expired)

    def delivered(self, *refused: Refusal, expired: bool = False) -> Outcome:
        accepted = [name for name in NAMES if name not in {refusal.recipient for refusal in refused}]
        return self.judge(Attempt(NAMES, accepted, refused), expired)

    def log_of_discards(self) -> list[tuple[str, str]]:
        """Return the reason and the recipients of each line of the discard log; empty the log."""
        lines = [
            re.fullmatch(r".* - WARNING - (.*?)\. Created:.*, To:(.*?)\. Error: .*", each) for each in self.log_lines()
        ]
        self.log.unlink(missing_ok=True)
        return [(line[1], line[2]) for line in lines if line]

    def recipients_in_log(self) -> list[str]:
        lines = self.log_lines()
        self.log.unlink(missing_ok=True)
        return [line.partition("To:")[2].partition(". Error")[0] for line in lines]


class DeliveredTests(PolicyTestCase):
    def test_to_all(self) -> None:
        self.assertEqual(self.delivered(), SENT)
        self.assertEqual(self.fields, {"created": NOW})

    def test_to_some(self) -> None:
        for refused, expired, outcome, logged, remaining in (
            ([LATER], False, DOQUEUE, [], ["b@example.com"]),
            ([NEVER], False, SENT, ["c@example.com"], []),
            ([LATER, NEVER], False, DOQUEUE, ["c@example.com"], ["b@example.com"]),
            ([LATER, NEVER], True, SENT, ["b@example.com", "c@example.com"], []),
        ):
            with self.subTest(refused=refused, expired=expired):
                self.assertEqual(self.delivered(*refused, expired=expired), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(self.meta.remaining, remaining)
                self.assertEqual(self.judgement.given_up, len(logged))


class FailedTests(PolicyTestCase):
    def test_table(self) -> None:
        everybody = "a@example.com, b@example.com, c@example.com"
        cannot_be_sent = UnicodeError("surrogates not allowed")
        for retry_rejected, error, reply, expired, reached, outcome, logged in (
            (True, "busy", BUSY, False, True, DOQUEUE, []),
            (True, "busy", BUSY, True, True, NOQUEUE, [("Message Expired", everybody)]),
            (True, "big", TOO_BIG, False, True, DOQUEUE, []),
            (True, "big", TOO_BIG, True, True, NOQUEUE, [("Message Expired", everybody)]),
            (True, "down", None, False, False, DOQUEUE, []),
            (True, "down", None, True, False, NOQUEUE, [("Message Expired", everybody)]),
            (True, cannot_be_sent, None, False, True, DOQUEUE, []),
            (False, "busy", BUSY, False, True, DOQUEUE, []),
            (False, "busy", BUSY, True, True, NOQUEUE, [("Message Expired", everybody)]),
            (False, "big", TOO_BIG, False, True, NOQUEUE, [("Message Refused", everybody)]),
            (False, "down", None, False, False, DOQUEUE, []),
            (False, "down", None, True, False, NOQUEUE, [("Message Expired", everybody)]),
            (False, cannot_be_sent, None, False, True, NOQUEUE, [("Message Unsendable", everybody)]),
            (False, RuntimeError("a bug"), None, False, True, DOQUEUE, []),
            (False, "not sent", None, False, True, DOQUEUE, []),
        ):
            case = {"retry_rejected": retry_rejected, "error": error, "expired": expired, "reached": reached}
            with self.subTest(**case), override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected):
                self.meta = Meta("0123456789ab")
                self.assertEqual(self.failed(error, reply, expired, reached), outcome)
                self.assertEqual(self.log_of_discards(), logged)
                self.assertEqual(self.fields[META_KEY]["attempts"], reached)
                self.assertNotIn("remaining", self.fields[META_KEY])

    def test_refused_recipients(self) -> None:
        for retry_rejected, remaining, refused, outcome, logged, left in (
            (True, None, [LATER, NEVER], DOQUEUE, [], None),
            (False, None, [LATER, NEVER], DOQUEUE, ["c@example.com"], ["a@example.com", "b@example.com"]),
            (True, ["b@example.com", "c@example.com"], [LATER, NEVER], DOQUEUE, ["c@example.com"], ["b@example.com"]),
            (True, ["c@example.com"], [NEVER], NOQUEUE, ["c@example.com"], []),
        ):
            with self.subTest(retry_rejected=retry_rejected, remaining=remaining):
                self.meta.remaining = remaining
                with override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected):
                    error = None if remaining else "the server hung up"
                    self.assertEqual(self.judge(Attempt(remaining or NAMES, [], refused, error), False), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(self.meta.remaining, left)

    def test_line_names_the_remaining_recipients(self) -> None:
        self.meta.remaining = ["b@example.com"]
        self.failed("busy", BUSY, expired=True)
        self.assertEqual(self.recipients_in_log(), ["b@example.com"])


class InterruptedDeliveryTests(PolicyTestCase):
    """An error after some recipients were accepted."""

    def test_accepted_recipients_are_not_tried_again(self) -> None:
        outcome = self.judge(Attempt(NAMES, ["a@example.com"], [NEVER], OSError("broken")), False)
        self.assertEqual((outcome, self.meta.remaining), (DOQUEUE, ["b@example.com"]))
        self.assertEqual(self.recipients_in_log(), ["c@example.com"])

    def test_fields_damaged_by_a_hook_do_not_cause_a_second_copy(self) -> None:
        del self.fields["created"]
        with self.assertLogs(DELIVERY, "ERROR"):
            self.assertEqual(self.delivered(LATER), DOQUEUE)
        self.assertEqual(self.meta.remaining, ["b@example.com"])

    def test_message_accepted_for_all_recipients_is_sent(self) -> None:
        self.assertEqual(self.judge(Attempt(NAMES, NAMES, [], OSError("broken")), True), SENT)
        self.assertEqual(self.recipients_in_log(), [])

    def test_message_without_a_mailer_keeps_its_recipients(self) -> None:
        self.meta.remaining = ["b@example.com"]
        self.assertEqual(self.judge(Attempt(error="no such mailer"), False), DOQUEUE)
        self.assertEqual(self.meta.remaining, ["b@example.com"])


class KeptTests(PolicyTestCase):
    def test_message_whose_discard_cannot_be_logged_stays(self) -> None:
        with (
            override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.log.parent)),
            self.assertLogs(DELIVERY, "ERROR"),
            redirect_stderr(StringIO()),
        ):
            self.assertEqual(self.failed("busy", BUSY, expired=True), DOQUEUE)

    def test_message_whose_fields_were_damaged_by_a_hook_is_kept(self) -> None:
        for fields in ({}, {"created": "yesterday"}):
            with self.subTest(fields=fields), self.assertLogs(DELIVERY, "ERROR"):
                self.fields = dict(fields)
                self.assertEqual(self.failed("busy", BUSY), DOQUEUE)

    def test_stored_error_is_truncated(self) -> None:
        self.failed("x" * 9999)
        self.assertEqual(len(self.fields[META_KEY]["last_error"]), ERROR_LENGTH)


class NameTests(SimpleTestCase):
    def test_addresses_are_named_as_in_the_message(self) -> None:
        recipients = ["Ä <a@x.example>", "b@bücher.example", "c@x.example"]
        self.assertEqual(
            names_of(["b@xn--bcher-kva.example", "a@X.example"], recipients), [recipients[1], recipients[0]]
        )

    def test_unknown_address_is_its_own_name(self) -> None:
        self.assertEqual(names_of(["c@x.example"], ["a@x.example"]), ["c@x.example"])

    def test_local_parts_are_case_sensitive(self) -> None:
        self.assertEqual(names_of(["A@x.example"], ["a@x.example", "A@x.example"]), ["A@x.example"])


class LinesTests(PolicyTestCase):
    def lines_after(self, attempt: Attempt, expired: bool = False) -> list[str]:
        self.judge(attempt, expired)
        return lines_of(self.message, self.meta, attempt, self.judgement)

    def test_line_for_each_reason(self) -> None:
        attempt = Attempt(NAMES, ["a@example.com"], [LATER, NEVER])
        self.assertEqual(
            self.lines_after(attempt),
            [
                "0123456789ab to b@example.com: 450 later (attempt 1, next in the next run)",
                "0123456789ab to c@example.com: 550 5.1.1 never (attempt 1, given up)",
            ],
        )

    def test_many_recipients_are_counted(self) -> None:
        self.message.to = [f"{number}@example.com" for number in range(9)]
        self.assertEqual(
            self.lines_after(Attempt(error="busy", reply=BUSY)),
            [
                "0123456789ab to 0@example.com, 1@example.com, 2@example.com and 6 more: "
                "busy (attempt 1, next in the next run)"
            ],
        )

    def test_expired(self) -> None:
        attempt = Attempt(NAMES, error="busy", reply=BUSY)
        self.assertIn("(attempt 1, given up)", self.lines_after(attempt, expired=True)[0])

    @override_settings(MAIL_QUEUE_RETRY_DELAY=240)
    def test_delay(self) -> None:
        self.fields["created"] = datetime.now()
        expired = NOW
        attempt = Attempt(NAMES, error="busy", reply=BUSY)
        judgement = judge(self.message, self.meta, self.fields, expired, attempt)
        (line,) = lines_of(self.message, self.meta, attempt, judgement)
        self.assertIn("(attempt 1, next in 4 minutes)", line)

    def test_message_that_is_no_emailmessage(self) -> None:
        self.message = object()  # type: ignore[assignment]
        attempt = Attempt(error="busy", reply=BUSY)
        self.assertEqual(self.lines_after(attempt), ["0123456789ab to : busy (attempt 1, next in the next run)"])
        self.assertEqual(self.judgement, Judgement(DOQUEUE))


class AddressedToTests(SimpleTestCase):
    def setUp(self) -> None:
        self.original = EmailMessage("a", "b", "from@x.example", ["a@x.example", "b@x.example"], cc=["c@x.example"])
        self.copy = addressed_to(self.original, ["b@x.example", "c@x.example"])

    def test_copy_is_sent_to_some_recipients_and_names_all(self) -> None:
        self.assertEqual(self.copy.recipients(), ["b@x.example", "c@x.example"])
        self.assertEqual(self.copy.message()["To"], "a@x.example, b@x.example")
        self.assertEqual(self.original.recipients(), ["a@x.example", "b@x.example", "c@x.example"])

    def test_copy_of_the_copy_is_sent_to_no_other_recipient(self) -> None:
        for duplicate in (copy.copy(self.copy), copy.deepcopy(self.copy)):
            duplicate.to, duplicate.cc = ["a@x.example", "b@x.example"], []
            self.assertEqual(duplicate.recipients(), ["b@x.example"])
