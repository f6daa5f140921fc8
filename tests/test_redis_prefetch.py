"""A taker of the Redis queue who is alone has the next message at hand: nothing is lost, counted twice or reordered."""

from __future__ import annotations

import time
from collections.abc import Sequence
from time import monotonic
from typing import Any
from unittest import mock
from uuid import uuid4

from django.test import override_settings

from mailqueue_backend.delivery.quota import DrainOptions
from mailqueue_backend.envelope import loads
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import Reservation
from mailqueue_backend.queues.redis import Queue
from mailqueue_backend.queues.redis_client import Line
from mailqueue_backend.queues.redis_prefetch import PrefetchingQueue
from mailqueue_backend.queues.redis_receipts import receipt_of

from . import services
from .cases import DiscardLogMixin, enqueue
from .smtp_server import SMTPServerMixin
from .test_queue_redis import RedisTestCase, queue_at


class PrefetchTestCase(RedisTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.prefetch(self.queue)

    def prefetch(self, queue: Queue) -> None:
        self.prefetching = queue.prefetching()
        self.addCleanup(self.prefetching.stop_prefetching)

    def first(self, lease: float = 60) -> Reservation:
        reservation = self.prefetching.reserve(lease)
        assert reservation is not None
        return reservation

    def following(self, reservation: Reservation, lease: float = 60) -> Reservation:
        acked, following = self.prefetching.ack_and_reserve(reservation, lease)
        self.assertTrue(acked)
        assert following is not None
        return following

    def assertReserved(self, number: int) -> None:
        """So many are in hand, once Redis has done what it was asked."""
        until = monotonic() + 5
        while self.queue.counts().reserved != number and monotonic() < until:
            time.sleep(0.001)
        self.assertEqual(self.queue.counts().reserved, number)


class HandingOutTests(PrefetchTestCase):
    def test_each_message_is_handed_out_once_and_in_order(self) -> None:
        payloads = [b"a", b"b", b"c", b"d", b"e"]
        self.queue.write_many(*payloads)
        taken, reservation = [], self.prefetching.reserve(60)
        while reservation is not None:
            taken.append((reservation.payload, reservation.deliveries))
            acked, reservation = self.prefetching.ack_and_reserve(reservation, 60)
            self.assertTrue(acked)
        self.assertEqual(taken, [(payload, 1) for payload in payloads])
        self.prefetching.stop_prefetching()
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_next_message_is_there_while_one_is_in_hand(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.first()
        self.assertReserved(2)
        self.assertEqual(self.the_list(), [b"c"])

    def test_message_that_comes_later_is_found(self) -> None:
        self.queue.write(b"a")
        first = self.first()
        self.assertReserved(1)
        self.queue.write(b"b")
        self.assertEqual(self.following(first).payload, b"b")

    def test_message_that_fails_goes_to_the_tail_and_the_next_one_comes(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        first = self.first()
        self.assertTrue(self.prefetching.release(first))
        self.assertEqual(self.first().payload, b"b")
        self.assertReserved(2)
        self.assertEqual(self.the_list(), [b"a"])

    def test_late_ack_is_told_in_the_log(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        first = self.first()
        self.assertReserved(2)
        self.redis.zadd(self.keys[2], {receipt_of(first).id: 0})
        self.assertEqual(self.take().payload, b"a")
        self.following(first)
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logs:
            self.prefetching.stop_prefetching()
        self.assertIn("after its lease had ended", logs.output[0])

    def test_next_message_that_has_waited_for_long_gets_a_new_lease(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        lease = 0.4
        first = self.first(lease)
        time.sleep(lease / 2)
        second = self.following(first, lease)
        self.assertEqual((second.payload, second.deliveries), (b"b", 1))
        self.assertGreater(receipt_of(second).until - monotonic(), lease / 2)

    def test_ack_is_sent_at_once_though_the_server_has_closed_the_connection(self) -> None:
        connection = self.prefetching._line._connection
        connection.send_command("CLIENT", "ID")
        number = connection.read_response()
        self.queue.write_many(b"a", b"b", b"c")
        first = self.first()
        self.assertTrue(connection.can_read(5))
        self.redis.client_kill_filter(_id=number)
        second = self.following(first)
        self.assertEqual(second.payload, b"b")
        self.assertReserved(2)
        self.assertEqual(self.redis.exists(self.name), 0)

    def test_size_of_the_pool_is_not_exceeded(self) -> None:
        queue = queue_at(f"{self.url}?max_connections=1", self.name)
        self.addCleanup(queue._server.hang_up)
        self.prefetch(queue)
        self.queue.write_many(b"a", b"b", b"c")
        self.assertTrue(self.prefetching.ack(self.following(self.first())))


class PuttingBackTests(PrefetchTestCase):
    def test_next_message_is_put_back_where_it_was(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.prefetching.ack(self.first())
        self.prefetching.stop_prefetching()
        self.assertEqual(self.the_list(), [b"b", b"c"])
        self.assertEqual(self.take().deliveries, 1)

    def test_messages_are_put_back_in_order_when_asking_is_interrupted(self) -> None:
        for step, left in (("send", [b"a", b"b", b"c"]), ("read", [b"b", b"c"])):
            with self.subTest(step):
                self.queue.write_many(b"a", b"b", b"c")
                with mock.patch.object(Line, step, side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
                    self.following(self.first())
                self.prefetching.stop_prefetching()
                self.assertEqual(self.the_list(), left)
                self.redis.delete(*self.keys)

    def test_message_from_the_hand_of_a_dead_process_has_none_beside_it(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.take(0)
        first = self.first()
        self.assertEqual((first.payload, first.deliveries), (b"a", 2))
        self.prefetching.ack(first)
        self.assertEqual(self.the_list(), [b"b"])

    def test_message_from_the_hand_of_a_dead_process_that_comes_next_has_none_beside_it(self) -> None:
        second = self.second_that_comes_before_an_expired_one()
        third = self.following(second)
        self.assertEqual((third.payload, third.deliveries), (b"expired", 2))
        self.assertEqual(self.queue.counts()[:4], (1, 1, 0, 1))

    def test_such_a_message_is_put_back_as_often_handed_out_as_it_was(self) -> None:
        self.second_that_comes_before_an_expired_one()
        self.prefetching.stop_prefetching()
        again = self.take()
        self.assertEqual((again.payload, again.deliveries), (b"expired", 2))

    def second_that_comes_before_an_expired_one(self) -> Reservation:
        self.queue.write_many(b"expired", b"first", b"second", b"waits")
        self.take(0.1)
        first = self.first()
        self.assertReserved(3)
        time.sleep(0.1)
        second = self.following(first)
        self.assertReserved(2)
        return second


class LostAnswerTests(PrefetchTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.go_through_a_proxy()
        self.prefetch(self.queue)
        self.queue.write_many(b"a", b"b", b"c")
        first = self.first()
        self.proxy.lose = b"ack_and_reserve"
        self.second = self.following(first)

    def test_it_is_asked_for_again(self) -> None:
        self.assertEqual(self.second.payload, b"b")
        with self.assertNoLogs("mailqueue_backend.delivery", "WARNING"):
            third = self.following(self.second)
        self.assertEqual((third.payload, third.deliveries), (b"c", 1))
        self.assertTrue(self.prefetching.ack(third))
        self.prefetching.stop_prefetching()
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_next_message_is_put_back_all_the_same(self) -> None:
        self.prefetching.ack(self.second)
        self.prefetching.stop_prefetching()
        self.assertEqual(self.the_list(), [b"c"])


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="mailqueue_backend.queues.redis", MAIL_QUEUE_REDIS_URL=f"redis://{services.REDIS}")
class DrainTests(SMTPServerMixin, DiscardLogMixin):
    """What a drain leaves in Redis."""

    def setUp(self) -> None:
        super().setUp()
        name = f"{services.PREFIX}_{uuid4().hex[:8]}"
        settings = override_settings(MAIL_QUEUE_NAME=name)
        settings.enable()
        self.addCleanup(settings.disable)
        self.queue = open_queue(name)
        self.addCleanup(self.queue._server.client.delete, *self.queue._keys)

    def waiting(self) -> list[str]:
        """Name what waits, in order."""
        return [loads(payload).email.subject for payload in self.queue.read_many(99)]

    def test_limit_leaves_the_others_in_order(self) -> None:
        enqueue("a", "b", "c", "d")
        backend = QueuedEmailBackend()
        backend.options = DrainOptions(limit=2)
        backend.send_queued_messages()
        self.assertEqual(backend.report.sent, 2)
        self.assertEqual(self.waiting(), ["c", "d"])

    def test_message_that_fails_is_tried_once(self) -> None:
        enqueue("a", "b", "c")
        backend = Counting(failing=["a"])
        backend.send_queued_messages()
        self.assertEqual(backend.tried, ["a", "b", "c"])
        self.assertEqual(self.waiting(), ["a"])

    def test_queue_that_is_away_at_the_end_is_asked_again(self) -> None:
        enqueue("a", "b")
        errors = [QueueUnavailable("It restarts."), None]
        with (
            mock.patch.object(PrefetchingQueue, "stop_prefetching", side_effect=errors) as stop,
            self.assertLogs("mailqueue_backend.delivery", "WARNING"),
        ):
            QueuedEmailBackend().send_queued_messages()
        self.assertEqual(stop.call_count, 2)

    def test_interrupt_leaves_all_in_the_queue(self) -> None:
        enqueue("a", "b", "c", "d")
        backend = Counting(interrupted_at="b")
        with self.assertRaises(KeyboardInterrupt):
            backend.send_queued_messages()
        self.assertEqual(self.queue.counts().reserved, 0)
        self.assertEqual(sorted(self.waiting()), ["b", "c", "d"])

    def test_several_workers_hold_one_message_each(self) -> None:
        enqueue(*(str(number) for number in range(60)))
        backend = Counting()
        backend.options = DrainOptions(workers=2)
        backend.send_queued_messages()
        self.assertEqual((len(backend.tried), max(backend.reserved)), (60, 2))
        self.assertEqual(self.waiting(), [])


class Counting(QueuedEmailBackend):
    """Notes what is tried, and how many messages are in hand meanwhile."""

    parallel = True

    def __init__(self, failing: Sequence[str] = (), interrupted_at: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.failing, self.interrupted_at = failing, interrupted_at
        self.tried: list[str] = []
        self.reserved: list[int] = []

    def _send_queued_messages(self, email_message: Any, *arguments: Any) -> tuple[bool, bool | None]:
        self.tried.append(email_message.subject)
        self.reserved.append(self.que.counts().reserved)
        if email_message.subject == self.interrupted_at:
            raise KeyboardInterrupt
        if email_message.subject in self.failing:
            return self.DOQUEUE
        return super()._send_queued_messages(email_message, *arguments)
