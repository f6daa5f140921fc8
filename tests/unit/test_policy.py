"""The policy: a table of what can have come of a try, and what follows."""

from __future__ import annotations

import copy
import smtplib
from contextlib import redirect_stderr
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from django.core.mail import EmailMessage
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery.addressing import addressed_to, names_of
from mailqueue_backend.delivery.policy import Attempt, Refusal, judge, refused_for_good
from mailqueue_backend.delivery.report import DOQUEUE, NOQUEUE, SENT, Outcome
from mailqueue_backend.envelope import ERROR_LENGTH, META_KEY, Meta
from tests.cases import DiscardLogMixin, message
from tests.smtp.cases import DELIVERY

NOW = datetime(2026, 1, 2)
NAMES = ["a@example.com", "b@example.com", "c@example.com"]
LATER, NEVER = Refusal("b@example.com", 450, "later"), Refusal("c@example.com", 550, "never")
BUSY, NO = smtplib.SMTPDataError(451, b"busy"), smtplib.SMTPDataError(554, b"no")


class PolicyTestCase(DiscardLogMixin):
    def setUp(self) -> None:
        super().setUp()
        self.fields: dict[str, Any] = {"created": NOW}
        self.meta = Meta("0123456789ab")
        self.message = message("a", NAMES)

    def judge(self, attempt: Attempt, expired: bool) -> Outcome:
        return judge(self.message, self.meta, self.fields, NOW + timedelta(seconds=1 if expired else -1), attempt)

    def failed(self, error: object, *refused: Refusal, expired: bool = False, reached: bool = True) -> Outcome:
        return self.judge(Attempt(NAMES, [], refused, error, reached), expired)

    def delivered(self, *refused: Refusal, expired: bool = False) -> Outcome:
        accepted = [name for name in NAMES if name not in {refusal.recipient for refusal in refused}]
        return self.judge(Attempt(NAMES, accepted, refused), expired)

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
            with self.subTest(refused=refused, expired=expired), self.assertLogs(DELIVERY):
                self.assertEqual(self.delivered(*refused, expired=expired), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(self.meta.remaining, remaining)


class FailedTests(PolicyTestCase):
    def test_table(self) -> None:
        everybody = "a@example.com, b@example.com, c@example.com"
        for retry_rejected, error, expired, reached, outcome, logged in (
            (True, BUSY, False, True, DOQUEUE, []),
            (True, BUSY, True, True, NOQUEUE, [everybody]),
            (True, NO, False, True, DOQUEUE, []),
            (True, NO, True, True, NOQUEUE, [everybody]),
            (True, NO, False, False, DOQUEUE, []),
            (True, NO, True, False, NOQUEUE, [everybody]),
            (False, BUSY, False, True, DOQUEUE, []),
            (False, BUSY, True, True, NOQUEUE, [everybody]),
            (False, NO, False, True, NOQUEUE, [everybody]),
            (False, NO, False, False, DOQUEUE, []),
            (False, NO, True, False, NOQUEUE, [everybody]),
            (False, "not sent", False, True, DOQUEUE, []),
        ):
            case = {"retry_rejected": retry_rejected, "error": error, "expired": expired, "reached": reached}
            with self.subTest(**case), override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected):
                self.meta = Meta("0123456789ab")
                if reached:
                    with self.assertLogs(DELIVERY):
                        self.assertEqual(self.failed(error, expired=expired), outcome)
                else:
                    self.assertEqual(self.failed(error, expired=expired, reached=False), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(self.fields[META_KEY]["attempts"], reached)
                self.assertNotIn("remaining", self.fields[META_KEY])

    def test_refused_recipients(self) -> None:
        for retry_rejected, remaining, refused, outcome, logged, left in (
            (True, None, [LATER, NEVER], DOQUEUE, [], None),
            (False, None, [LATER, NEVER], DOQUEUE, ["c@example.com"], ["a@example.com", "b@example.com"]),
            (True, ["b@example.com", "c@example.com"], [LATER, NEVER], DOQUEUE, ["c@example.com"], ["b@example.com"]),
            (True, ["c@example.com"], [NEVER], NOQUEUE, ["c@example.com"], []),
        ):
            with self.subTest(retry_rejected=retry_rejected, remaining=remaining), self.assertLogs(DELIVERY):
                self.meta.remaining = remaining
                with override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected):
                    error = smtplib.SMTPRecipientsRefused({})
                    names = remaining or NAMES
                    self.assertEqual(self.judge(Attempt(names, [], refused, error), False), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(self.meta.remaining, left)

    def test_line_names_those_who_are_left(self) -> None:
        self.meta.remaining = ["b@example.com"]
        with self.assertLogs(DELIVERY):
            self.failed(BUSY, expired=True)
        self.assertEqual(self.recipients_in_log(), ["b@example.com"])


class InterruptedDeliveryTests(PolicyTestCase):
    """Something failed after somebody had accepted the message."""

    def test_those_who_have_it_are_not_tried_again(self) -> None:
        with self.assertLogs(DELIVERY):
            outcome = self.judge(Attempt(NAMES, ["a@example.com"], [NEVER], OSError("broken")), False)
        self.assertEqual((outcome, self.meta.remaining), (DOQUEUE, ["b@example.com"]))
        self.assertEqual(self.recipients_in_log(), ["c@example.com"])

    def test_fields_that_a_hook_has_spoilt_do_not_have_it_sent_to_all(self) -> None:
        del self.fields["created"]
        with self.assertLogs(DELIVERY, "ERROR"):
            self.assertEqual(self.delivered(LATER), DOQUEUE)
        self.assertEqual(self.meta.remaining, ["b@example.com"])

    def test_when_all_have_it_nothing_is_left(self) -> None:
        with self.assertLogs(DELIVERY):
            self.assertEqual(self.judge(Attempt(NAMES, NAMES, [], OSError("broken")), True), SENT)
        self.assertEqual(self.recipients_in_log(), [])

    def test_message_without_a_mailer_keeps_its_recipients(self) -> None:
        self.meta.remaining = ["b@example.com"]
        with self.assertLogs(DELIVERY):
            self.assertEqual(self.judge(Attempt(error="no such mailer"), False), DOQUEUE)
        self.assertEqual(self.meta.remaining, ["b@example.com"])


class KeptTests(PolicyTestCase):
    def test_message_whose_discard_cannot_be_logged_stays(self) -> None:
        with (
            override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.log.parent)),
            self.assertLogs(DELIVERY, "ERROR"),
            redirect_stderr(StringIO()),
        ):
            self.assertEqual(self.failed(BUSY, expired=True), DOQUEUE)

    def test_fields_that_a_hook_has_spoilt(self) -> None:
        for fields in ({}, {"created": "yesterday"}):
            with self.subTest(fields=fields), self.assertLogs(DELIVERY, "ERROR"):
                self.fields = dict(fields)
                self.assertEqual(self.failed(BUSY), DOQUEUE)

    def test_error_is_kept_in_short(self) -> None:
        with self.assertLogs(DELIVERY):
            self.failed("x" * 9999)
        self.assertEqual(len(self.fields[META_KEY]["last_error"]), ERROR_LENGTH)

    def test_message_of_another_kind(self) -> None:
        self.message = object()  # type: ignore[assignment]
        with self.assertLogs(DELIVERY) as logged:
            self.assertEqual(self.failed(BUSY), DOQUEUE)
        self.assertIn("without a Message-ID", logged.output[0])


class NameTests(SimpleTestCase):
    def test_names_are_those_of_the_message(self) -> None:
        recipients = ["Ä <a@x.example>", "b@bücher.example", "c@x.example"]
        self.assertEqual(
            names_of(["b@xn--bcher-kva.example", "a@X.example"], recipients), [recipients[1], recipients[0]]
        )

    def test_address_of_nobody_is_its_own_name(self) -> None:
        self.assertEqual(names_of(["c@x.example"], ["a@x.example"]), ["c@x.example"])

    def test_local_parts_that_differ_in_case_are_two(self) -> None:
        self.assertEqual(names_of(["A@x.example"], ["a@x.example", "A@x.example"]), ["A@x.example"])


class RefusalTests(SimpleTestCase):
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
    def setUp(self) -> None:
        self.original = EmailMessage("a", "b", "from@x.example", ["a@x.example", "b@x.example"], cc=["c@x.example"])
        self.copy = addressed_to(self.original, ["b@x.example", "c@x.example"])

    def test_copy_goes_to_some_and_names_all(self) -> None:
        self.assertEqual(self.copy.recipients(), ["b@x.example", "c@x.example"])
        self.assertEqual(self.copy.message()["To"], "a@x.example, b@x.example")
        self.assertEqual(self.original.recipients(), ["a@x.example", "b@x.example", "c@x.example"])

    def test_copy_of_the_copy_goes_to_no_one_else(self) -> None:
        for duplicate in (copy.copy(self.copy), copy.deepcopy(self.copy)):
            duplicate.to, duplicate.cc = ["a@x.example", "b@x.example"], []
            self.assertEqual(duplicate.recipients(), ["b@x.example"])
