"""The verdict: a table of what can have become of a message, and what follows."""

from __future__ import annotations

import smtplib
from contextlib import redirect_stderr
from datetime import datetime, timedelta
from io import StringIO
from typing import Any

from django.test import override_settings

from mailqueue_backend.delivery.outcomes import DOQUEUE, NOQUEUE, SENT, Outcome
from mailqueue_backend.mail.refusals import Refusal
from mailqueue_backend.mail.verdict import ERROR_LENGTH, after_delivery, after_failure, ours

from .cases import DiscardLogMixin, message
from .scripted_cases import DELIVERY

NOW = datetime(2026, 1, 2)
LATER, NEVER = Refusal("b@example.com", 450, "later"), Refusal("c@example.com", 550, "never")
BUSY, NO = smtplib.SMTPDataError(451, b"busy"), smtplib.SMTPDataError(554, b"no")


class VerdictTestCase(DiscardLogMixin):
    def setUp(self) -> None:
        super().setUp()
        self.fields: dict[str, Any] = {"created": NOW}
        self.message = message("a", ["a@example.com", "b@example.com", "c@example.com"])

    def expired(self, expired: bool) -> datetime:
        return NOW + timedelta(seconds=1 if expired else -1)

    def failed(self, error: object, *refused: Refusal, expired: bool = False, reached: bool = True) -> Outcome:
        return after_failure(self.message, self.expired(expired), self.fields, error, refused, reached)

    def delivered(self, *refused: Refusal, expired: bool = False) -> Outcome:
        return after_delivery(self.message, self.expired(expired), self.fields, refused)

    def recipients_in_log(self) -> list[str]:
        lines = self.log_lines()
        self.log.unlink(missing_ok=True)
        return [line.partition("To:")[2].partition(". Error")[0] for line in lines]


class DeliveredTests(VerdictTestCase):
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
                self.assertEqual(ours(self.fields)["remaining"], remaining)


class FailedTests(VerdictTestCase):
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
                self.fields = {"created": NOW}
                if reached:
                    with self.assertLogs(DELIVERY):
                        self.assertEqual(self.failed(error, expired=expired), outcome)
                else:
                    self.assertEqual(self.failed(error, expired=expired, reached=False), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(ours(self.fields).get("attempts", 0), reached)
                self.assertNotIn("remaining", ours(self.fields))

    def test_refused_recipients(self) -> None:
        for retry_rejected, remaining, refused, outcome, logged, left in (
            (True, None, [LATER, NEVER], DOQUEUE, [], None),
            (False, None, [LATER, NEVER], DOQUEUE, ["c@example.com"], ["a@example.com", "b@example.com"]),
            (True, ["b@example.com", "c@example.com"], [LATER, NEVER], DOQUEUE, ["c@example.com"], ["b@example.com"]),
            (True, ["c@example.com"], [NEVER], NOQUEUE, ["c@example.com"], []),
        ):
            with self.subTest(retry_rejected=retry_rejected, remaining=remaining), self.assertLogs(DELIVERY):
                self.fields = {"created": NOW, "mailqueue": {} if remaining is None else {"remaining": remaining}}
                with override_settings(MAIL_QUEUE_RETRY_REJECTED=retry_rejected):
                    error = smtplib.SMTPRecipientsRefused({})
                    self.assertEqual(self.failed(error, *refused), outcome)
                self.assertEqual(self.recipients_in_log(), logged)
                self.assertEqual(ours(self.fields).get("remaining"), left)

    def test_line_names_those_who_are_left(self) -> None:
        self.fields["mailqueue"] = {"remaining": ["b@example.com"]}
        with self.assertLogs(DELIVERY):
            self.failed(BUSY, expired=True)
        self.assertEqual(self.recipients_in_log(), ["b@example.com"])


class KeptTests(VerdictTestCase):
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

    def test_part_that_is_not_ours_is_replaced(self) -> None:
        for part in (None, "mine", 3):
            with self.subTest(part=part):
                fields: dict[str, Any] = {"mailqueue": part}
                ours(fields)["attempts"] = 1
                self.assertEqual(fields, {"mailqueue": {"attempts": 1}})

    def test_error_is_kept_in_short(self) -> None:
        with self.assertLogs(DELIVERY):
            self.failed("x" * 9999)
        self.assertEqual(len(ours(self.fields)["last_error"]), ERROR_LENGTH)

    def test_message_of_another_kind(self) -> None:
        self.message = object()  # type: ignore[assignment]
        with self.assertLogs(DELIVERY) as logged:
            self.assertEqual(self.failed(BUSY), DOQUEUE)
        self.assertIn("without a Message-ID", logged.output[0])
