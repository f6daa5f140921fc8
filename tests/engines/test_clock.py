"""Messages that lie in the future, because the clock of the queue's server was ahead."""

from __future__ import annotations

from unittest import mock

from django.test import SimpleTestCase, TransactionTestCase, override_settings

from mailqueue_backend.checks import check_clock
from mailqueue_backend.delivery.clock import describe_future
from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.queues.base import Counts, Settlement
from tests import services
from tests.smtp import always

from .feed.base import FeedMixin


class ClockContract(FeedMixin):
    """The line about messages in the future, and its absence for messages that are meant for later."""

    def defer(self, seconds: float) -> None:
        """Defer the first message, without an attempt."""
        with self.queue.consumer(60) as consumer:
            (reservation,) = consumer.exchange(wanted=1).reservations
            consumer.exchange([Settlement(reservation, "release", delay=seconds)])

    def future(self) -> str:
        return describe_future(self.queue, self.queue.counts())

    def test_drain_says_that_a_message_lies_in_the_future_and_leaves_it_there(self) -> None:
        self.enqueue("a")
        self.defer(90_000)
        troubles = Troubles()
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logs:
            for _ in range(2):
                self.assertEqual(self.drain(troubles=troubles, stop=StopRequest()).length, 0)
        (line,) = logs.output
        self.assertRegex(line, r"Message [0-9a-f]{12} in \S+ is deferred until .* \(for 1 day\), although nothing")
        self.assertEqual(self.queue.counts().deferred, 1)

    def test_reservation_that_is_longer_than_any_lease_is_named(self) -> None:
        self.enqueue("a")
        consumer = self.queue.consumer(90_000)
        self.addCleanup(consumer.close)
        consumer.exchange(wanted=1)
        self.assertIn("is reserved until", self.future())

    @override_settings(MAIL_QUEUE_RETRY_DELAY=7200)
    def test_message_that_waits_for_its_next_attempt_does_not_lie_in_the_future(self) -> None:
        self.enqueue("a")
        self.script = always("dot", "451 later")
        self.drain()
        self.assertEqual((self.queue.counts().deferred, self.future()), (1, ""))

    def test_message_behind_the_first_page_is_found(self) -> None:
        self.enqueue(*"abc")
        for delay in (1, 2, 90_000):
            self.defer(delay)
        with mock.patch("mailqueue_backend.delivery.clock.PAGE", 1):
            self.assertIn("deferred until", self.future())

    def test_check_warns(self) -> None:
        self.enqueue("a")
        self.assertEqual(check_clock(), [])
        self.defer(90_000)
        (problem,) = check_clock()
        self.assertEqual(problem.id, "mailqueue_backend.W012")
        self.assertIn("deferred until", problem.msg)

    def test_queue_without_such_messages_is_not_searched(self) -> None:
        self.enqueue("a")
        with mock.patch.object(type(self.queue), "browse") as browse:
            self.assertEqual(self.future(), "")
        browse.assert_not_called()


class DatabaseClockTests(ClockContract, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisClockTests(ClockContract, SimpleTestCase):
    engine = "redis"


class PlainClockTests(FeedMixin, SimpleTestCase):
    engine = "dummy"

    def test_engine_that_cannot_look_says_nothing(self) -> None:
        self.assertEqual(describe_future(self.queue, Counts(1, 0, 1, 0, 0)), "")
