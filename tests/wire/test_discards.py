"""The discard log is written before the message leaves the queue."""

from __future__ import annotations

import logging
from io import StringIO
from typing import Any
from unittest import mock

from django.test import override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Consumer
from tests.cases import MailTestCase, drain, enqueue
from tests.smtp import always


class SilentHookBackend(QueuedEmailBackend):
    """A site's backend, which gives up every message and logs nothing."""

    def _send_queued_messages(self, *args: Any) -> Any:
        return self.NOQUEUE


class SendingBackend(QueuedEmailBackend):
    """A site's backend, which sends every message and says that it need not be requeued."""

    def _send_queued_messages(self, *args: Any) -> Any:
        super()._send_queued_messages(*args)
        return self.NOQUEUE


class KeepTests(MailTestCase):
    def test_message_stays_when_its_discard_cannot_be_logged(self) -> None:
        enqueue("a", "b")
        with (
            override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.log / "missing")),
            mock.patch("sys.stderr", new_callable=StringIO) as stderr,
            self.scripted(always("dot", "554 no")),
            self.assertLogs("mailqueue_backend.delivery", logging.ERROR),
        ):
            report = drain(expire=0)
        self.assertEqual((report.discarded, report.requeued), (0, 2))
        self.assertEqual(len(self.queue), 2)
        self.assertIn("No such file", stderr.getvalue())

    def test_line_is_in_the_file_before_the_message_leaves_the_queue(self) -> None:
        enqueue("a")
        lines: list[int] = []
        exchange = Consumer.exchange

        def noted(consumer: Any, settlements: Any = (), wanted: int = 0) -> Any:
            lines.extend(len(self.log_lines()) for settlement in settlements if settlement.how == "ack")
            return exchange(consumer, settlements, wanted)

        with (
            mock.patch.object(Consumer, "exchange", noted),
            self.scripted(always("dot", "554 no")),
            self.assertLogs("mailqueue_backend.delivery", "WARNING"),
        ):
            drain(expire=0)
        self.assertEqual(lines, [1])

    def test_message_that_a_hook_gives_up_without_a_line_gets_one(self) -> None:
        enqueue("a")
        self.assertEqual(drain(SilentHookBackend()).discarded, 1)
        (line,) = self.log_lines()
        self.assertIn("Message Refused", line)
        self.assertIn("Error: given up by SilentHookBackend", line)

    def test_message_that_a_hook_has_sent_gets_no_line(self) -> None:
        enqueue("a")
        drain(SendingBackend())
        self.assertEqual((self.inbox.subjects, self.log_lines()), (["a"], []))

    @override_settings(MAIL_QUEUE_LOG_FILENAME="/no/such/directory/discards.log")
    def test_message_that_a_hook_gives_up_stays_when_that_cannot_be_logged(self) -> None:
        enqueue("a")
        with mock.patch("sys.stderr"), self.assertLogs("mailqueue_backend.delivery", logging.ERROR):
            self.assertEqual(drain(SilentHookBackend()).requeued, 1)
        self.assertEqual(len(self.queue), 1)
