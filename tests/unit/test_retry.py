"""Retrying: the delay before the next attempt, and how long a drain waits for its queue."""

from __future__ import annotations

import time
from datetime import datetime, timedelta
from unittest import mock

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery import in_flight
from mailqueue_backend.delivery.in_flight import retry_while_unavailable
from mailqueue_backend.delivery.policy import retry_delay
from mailqueue_backend.envelope import Meta
from mailqueue_backend.errors import QueueUnavailable
from tests.smtp.cases import DELIVERY


class DelayTests(SimpleTestCase):
    def test_delay_is_the_age_of_the_message_within_limits(self) -> None:
        for delay, age, seconds in (
            (0, 100, 0),
            (60, 0, 60),
            (60, 30, 60),
            (60, 100, 100),
            (60, 3599, 3599),
            (60, 99999, 3600),
            (7200, 0, 7200),
            (7200, 99999, 7200),
            (60, -500, 60),
        ):
            with self.subTest(delay=delay, age=age), override_settings(MAIL_QUEUE_RETRY_DELAY=delay):
                created = datetime.now() - timedelta(seconds=age)
                self.assertAlmostEqual(retry_delay(Meta(""), created), seconds, delta=1)


class UnavailableQueueTests(SimpleTestCase):
    def test_step_is_repeated_until_the_queue_answers(self) -> None:
        step = mock.Mock(side_effect=[QueueUnavailable("restarting"), QueueUnavailable("restarting"), "done"])
        with mock.patch.object(time, "sleep") as sleep, self.assertLogs(DELIVERY, "INFO"):
            self.assertEqual(retry_while_unavailable(step), "done")
        self.assertEqual([call.args[0] for call in sleep.call_args_list], list(in_flight.PAUSES[:2]))

    def test_step_fails_when_the_queue_stays_down(self) -> None:
        step = mock.Mock(side_effect=QueueUnavailable("gone"))
        with (
            mock.patch.object(time, "sleep"),
            self.assertLogs(DELIVERY, "INFO"),
            self.assertRaises(QueueUnavailable),
        ):
            retry_while_unavailable(step)
        self.assertEqual(step.call_count, len(in_flight.PAUSES) + 1)

    def test_step_is_repeated_for_longer_while_the_caller_says_so(self) -> None:
        step = mock.Mock(side_effect=[QueueUnavailable("restarting")] * 9 + ["done"])
        with mock.patch.object(time, "sleep"), self.assertLogs(DELIVERY, "INFO"):
            self.assertEqual(retry_while_unavailable(step, lambda: True), "done")
