"""Order: messages that are not delivered keep their places."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any
from unittest import mock

from mailqueue_backend.delivery import feed
from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.smtp import in_turn

from .base import MANY, FeedMixin


class OrderContract(FeedMixin):
    """Messages that are not delivered keep their places."""

    def test_server_that_is_down_changes_nothing(self) -> None:
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.start_anew()
                self.enqueue(*MANY)
                self.down(workers=workers)
                self.assertEqual({envelope.meta.attempts for envelope in self.left()}, {0})
                self.assertLeft(*MANY)

    def test_limit_leaves_the_others_in_order(self) -> None:
        self.enqueue(*MANY)
        report = self.drain(limit=25, workers=2)
        self.assertEqual((report.sent, len(self.sent())), (25, 25))
        self.assertLeft(*MANY[25:])

    def test_stop_while_the_first_worker_connects_leaves_the_others_in_order(self) -> None:
        self.enqueue(*MANY)
        stop = StopRequest()

        def script(step: str, argument: str) -> None:
            if step == "banner":
                stop.ask()
                # Answer only after the workers have been told to stop.
                time.sleep(0.2)

        self.script = script
        report = self.drain(workers=3, stop=stop)
        self.assertEqual((report.sent, self.smtp.connections), (1, 1))
        self.assertLeft(*MANY[1:])

    def test_message_that_fails_is_tried_once_and_goes_to_the_tail(self) -> None:
        self.script = in_turn(RCPT=["450 later"])
        self.enqueue("a", "b", "c")
        report = self.drain()
        self.assertEqual((report.requeued, self.sent()), (1, ["b", "c"]))
        self.enqueue("d")
        self.assertEqual([(one.email.subject, one.meta.attempts) for one in self.left()], [("a", 1), ("d", 0)])

    def test_each_message_that_fails_is_tried_once_by_several_workers(self) -> None:
        self.script = lambda step, argument: "552 5.3.4 too big" if step == "dot" else None
        self.enqueue(*MANY)
        report = self.drain(workers=3)
        self.assertEqual(report.requeued, 60)
        self.assertEqual({envelope.meta.attempts for envelope in self.left()}, {1})

    def test_interrupt_in_a_hook_keeps_the_order(self) -> None:
        self.enqueue(*"abcdefghijkl")
        with self.assertRaises(KeyboardInterrupt):
            self.drain(Interrupted)
        self.assertEqual(self.sent(), ["a", "b"])
        self.assertLeft(*"cdefghijkl")

    def test_interrupt_with_several_workers_keeps_the_order(self) -> None:
        self.enqueue(*MANY)
        with mock.patch.object(feed.Feed, "_wait", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.drain(workers=3)
        self.assertEqual(Counter(self.sent() + self.subjects()), Counter(MANY))
        self.assertLeft(*sorted(self.subjects()))


class Interrupted(QueuedEmailBackend):
    """Raise KeyboardInterrupt at message "c"."""

    def _send_now(self, message: Any) -> Any:
        if message.subject == "c":
            raise KeyboardInterrupt
        return super()._send_now(message)
