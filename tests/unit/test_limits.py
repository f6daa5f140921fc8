"""The quota of a drain: how many messages it may still begin, and when."""

from __future__ import annotations

import threading
import time
from typing import Any

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.delivery.limits import DrainOptions, Quota


class QuotaTests(SimpleTestCase):
    def quota(self, messages: int = 5, **options: Any) -> Quota:
        return Quota(messages, DrainOptions(**options))

    def test_as_many_as_the_limit_allows(self) -> None:
        for messages, limit, left in ((5, None, 5), (0, None, 0), (5, 3, 3), (5, 9, 5)):
            with self.subTest(messages=messages, limit=limit):
                self.assertEqual(self.quota(messages, limit=limit).left, left)

    def test_none_when_it_is_asked_to_stop(self) -> None:
        quota = self.quota()
        self.assertTrue(quota.wait())
        quota.stop.ask()
        self.assertTrue(quota.is_over())
        self.assertFalse(quota.wait())

    def test_none_when_time_is_up(self) -> None:
        quota = self.quota(time_limit=0.1)
        self.assertTrue(quota.wait())
        time.sleep(0.15)
        self.assertTrue(quota.is_over())
        self.assertFalse(quota.wait())

    @override_settings(MAIL_QUEUE_RATE=20)
    def test_one_after_the_other(self) -> None:
        quota = self.quota(5)
        began = time.monotonic()
        for _ in range(5):
            self.assertTrue(quota.wait())
            quota.begin()
        self.assertGreaterEqual(time.monotonic() - began, 0.2)

    @override_settings(MAIL_QUEUE_RATE=0.01)
    def test_turn_that_comes_too_late_is_not_waited_for(self) -> None:
        quota = self.quota(time_limit=5)
        quota.begin()
        began = time.monotonic()
        self.assertFalse(quota.wait())
        self.assertLess(time.monotonic() - began, 1)

    @override_settings(MAIL_QUEUE_RATE=0.01)
    def test_waiting_ends_when_it_is_asked_to_stop(self) -> None:
        quota = self.quota()
        quota.begin()
        timer = threading.Timer(0.1, quota.stop.ask)
        timer.start()
        self.assertFalse(quota.wait())
        timer.join()
