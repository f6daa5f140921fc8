"""The discard log is written before the message leaves the queue."""

from __future__ import annotations

import logging
from io import StringIO
from typing import Any
from unittest import mock

from django.test import override_settings

from mailqueue_backend.queues.base import Consumer
from tests.cases import MailTestCase, drain, enqueue
from tests.smtp import always


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
            self.assertLogs("mailqueue_backend.delivery"),
        ):
            drain(expire=0)
        self.assertEqual(lines, [1])
