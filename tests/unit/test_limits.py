"""The quota of a drain: how many more messages it may begin, and when."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery.limits import DrainOptions, Quota


class QuotaTests(SimpleTestCase):
    def quota(self, messages: int = 5, **options: Any) -> Quota:
        return Quota(messages, DrainOptions(**options))

    def test_limit_caps_the_number_of_messages(self) -> None:
        for messages, limit, left in ((5, None, 5), (0, None, 0), (5, 3, 3), (5, 9, 5)):
            with self.subTest(messages=messages, limit=limit):
                self.assertEqual(self.quota(messages, limit=limit).left, left)

    def test_stop_request_ends_the_quota(self) -> None:
        quota = self.quota()
        self.assertTrue(quota.wait())
        quota.stop.ask()
        self.assertTrue(quota.is_over())
        self.assertFalse(quota.wait())

    def test_time_limit_ends_the_quota(self) -> None:
        quota = self.quota(time_limit=0.1)
        self.assertTrue(quota.wait())
        time.sleep(0.15)
        self.assertTrue(quota.is_over())
        self.assertFalse(quota.wait())

    @override_settings(MAIL_QUEUE_RATE=20)
    def test_rate_spaces_the_messages(self) -> None:
        quota = self.quota(5)
        began = time.monotonic()
        for _ in range(5):
            self.assertTrue(quota.wait())
            quota.begin()
        self.assertGreaterEqual(time.monotonic() - began, 0.2)

    @override_settings(MAIL_QUEUE_RATE=0.01)
    def test_wait_returns_at_once_if_the_turn_is_after_the_time_limit(self) -> None:
        quota = self.quota(time_limit=5)
        quota.begin()
        began = time.monotonic()
        self.assertFalse(quota.wait())
        self.assertLess(time.monotonic() - began, 1)

    @override_settings(MAIL_QUEUE_RATE=0.01)
    def test_stop_request_ends_the_wait(self) -> None:
        quota = self.quota()
        quota.begin()
        timer = threading.Timer(0.1, quota.stop.ask)
        timer.start()
        self.assertFalse(quota.wait())
        timer.join()
