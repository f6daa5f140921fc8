"""Any queue-front module behind the contract: dummy, and modules that behave differently."""

from __future__ import annotations

import importlib
from unittest import mock

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import Consumer, MessageQueue, Reservation, Settlement
from mailqueue_backend.queues.plain import PlainQueue
from tests.engines.contract import QueueContract, TakersContract
from tests.engines.contract.base import LONG, OpensQueues


@override_settings(QUEUE_BACKEND="dummy")
class DummyTests(QueueContract, TakersContract, SimpleTestCase):
    one_process_only = "queue-front's dummy lives in one process"

    def make_queue(self, name: str) -> MessageQueue:
        return open_queue(name)


class SiteQueue:
    """A site's own queue, in memory, whose methods can be overridden."""

    stored: dict[str, list[bytes]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.payloads = self.stored.setdefault(name, [])

    def read(self):
        return self.payloads.pop(0) if self.payloads else self.on_empty()

    def on_empty(self):
        return None

    def write(self, payload):
        self.payloads.append(payload)
        return True

    def __len__(self):
        return len(self.payloads)


@override_settings(QUEUE_BACKEND="dummy")
class SiteQueueTests(OpensQueues, SimpleTestCase):
    def setUp(self) -> None:
        self.addCleanup(SiteQueue.stored.clear)
        super().setUp()
        self.QueueException = importlib.import_module("queue_front").QueueException

    def make_queue(self, name: str) -> PlainQueue:
        return PlainQueue(SiteQueue(name))

    def make(self, **methods) -> PlainQueue:
        return PlainQueue(type("Queue", (SiteQueue,), methods)("mail"))

    def raising(self, error: BaseException):
        return mock.Mock(side_effect=error)

    def test_every_way_to_report_an_empty_queue_is_understood(self) -> None:
        for name, on_empty in {
            "None": lambda self: None,
            "IndexError": self.raising(IndexError("pop from empty list")),
            "QueueException": self.raising(self.QueueException("Empty")),
        }.items():
            with self.subTest(name):
                queue = self.make(on_empty=on_empty)
                self.assertIsNone(queue.read())
                self.assertEqual(queue.consumer(LONG).exchange(wanted=2).reservations, [])
                self.assertEqual(queue.read_many(2), [])

    def test_a_queue_filled_after_it_reported_empty_is_read_again(self) -> None:
        def fill_and_report_empty(queue):
            queue.write(b"late")
            raise self.QueueException("Empty")

        self.assertEqual(self.make(on_empty=fill_and_report_empty).read(), b"late")

    def test_a_module_is_not_assumed_to_support_threads(self) -> None:
        self.assertFalse(self.queue.parallel)

    def test_empty_messages_are_messages(self) -> None:
        self.queue.write_many(b"", b"")
        self.assertEqual(len(self.consumer().exchange(wanted=3).reservations), 2)

    def test_a_queue_that_refuses_though_it_is_not_empty_is_unavailable(self) -> None:
        for error in (self.QueueException("no"), OSError("no")):
            with self.subTest(type(error).__name__):
                queue = self.make(read=self.raising(error), __len__=lambda self: 1)
                with self.assertRaisesMessage(QueueUnavailable, "cannot be read: no") as caught:
                    queue.read()
                self.assertIs(caught.exception.__cause__, error)

    def test_a_refused_write_is_an_error_that_says_how_many_were_stored(self) -> None:
        queue = self.make(write=lambda self, payload: payload != b"c")
        with self.assertRaisesMessage(QueueUnavailable, "has stored 2 of 4 messages: the queue refused one"):
            queue.write_many(b"a", b"b", b"c", b"d")

    def test_write_many_of_the_module_is_used_where_it_works(self) -> None:
        def together(queue, *payloads):
            queue.payloads.append(b"+".join(payloads))

        queue = self.make(write_many=together)
        self.assertEqual(queue.write_many(b"a", b"b"), [True, True])
        self.assertEqual(queue.read(), b"a+b")

    def test_a_module_without_write_many_is_written_one_by_one(self) -> None:
        for methods in ({}, {"write_many": self.raising(NotImplementedError())}):
            with self.subTest(methods):
                queue = self.make(**methods)
                self.assertEqual(queue.write_many(b"a", b"b"), [True, True])
                self.assertEqual(queue.read_many(3), [b"a", b"b"])

    def test_a_batch_that_fails_in_the_module_is_not_written_again(self) -> None:
        for name, write_many in {
            "raises": self.raising(AttributeError("a bug behind the first message")),
            "refuses": lambda self, *payloads: [True, False],
        }.items():
            with self.subTest(name):
                queue = self.make(write_many=write_many)
                with self.assertRaisesMessage(QueueUnavailable, "may not have stored all of 2 messages"):
                    queue.write_many(b"a", b"b")
                self.assertEqual(len(queue), 0)

    def held(self, payload: bytes = b"a") -> tuple[Consumer, Reservation]:
        """Write a message and reserve it."""
        self.queue.write(payload)
        consumer = self.consumer()
        return consumer, self.reserve(consumer)

    def test_a_message_that_cannot_be_written_stays_held(self) -> None:
        for error, raised in ((OSError("down"), QueueUnavailable), (KeyboardInterrupt(), KeyboardInterrupt)):
            for how in ("release", "bury", "put_back", "leave"):
                with self.subTest(f"{type(error).__name__} in {how}"):
                    consumer, reservation = self.held()
                    with mock.patch.object(SiteQueue, "write", self.raising(error)), self.assertRaises(raised):
                        self.settle(consumer, reservation, how)
                    self.check_counts(reserved=1)
                    self.assertTrue(self.settle(consumer, reservation, "release"))
                    self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_a_refused_message_stays_held_until_it_can_be_put_back(self) -> None:
        consumer, _ = self.held()
        with (
            mock.patch.object(SiteQueue, "write", return_value=False),
            self.assertRaisesMessage(QueueUnavailable, "has not stored a message: the queue refused one"),
        ):
            consumer.close()
        self.check_counts(reserved=1)
        consumer.close()
        self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_only_messages_that_were_not_written_are_written_again(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        releases = [Settlement(reservation, "release") for reservation in consumer.exchange(wanted=3).reservations]
        write, payloads = SiteQueue.write, []

        def fail_at_the_second(queue, payload):
            payloads.append(payload)
            return write(queue, payload) if len(payloads) != 2 else False

        with mock.patch.object(SiteQueue, "write", fail_at_the_second):
            with self.assertRaises(QueueUnavailable):
                consumer.exchange(releases)
            self.assertEqual(consumer.exchange(releases).settled, [True, True, True])
        self.assertEqual(self.queue.read_many(4), [b"a", b"b", b"c"])

    def test_a_message_read_before_an_error_is_not_lost(self) -> None:
        for error, raised in ((OSError("down"), QueueUnavailable), (KeyboardInterrupt(), KeyboardInterrupt)):
            with self.subTest(type(error).__name__):
                self.queue.write(b"a")
                consumer = self.consumer()
                with (
                    mock.patch.object(SiteQueue, "on_empty", self.raising(error), create=True),
                    self.assertRaises(raised),
                ):
                    consumer.exchange(wanted=2)
                self.assertEqual([each.payload for each in consumer.exchange(wanted=2).reservations], [b"a"])
                consumer.close()
                self.assertEqual(self.queue.read_many(2), [b"a"])

    def test_a_message_that_is_left_goes_to_the_tail(self) -> None:
        self.queue.write_many(b"a", b"b")
        with self.queue.consumer(LONG) as consumer:
            self.assertTrue(self.settle(consumer, self.reserve(consumer), "leave"))
        self.assertEqual(self.queue.read_many(3), [b"b", b"a"])

    def test_a_dead_queue_that_cannot_be_opened_keeps_the_message_held(self) -> None:
        consumer, reservation = self.held()
        with (
            mock.patch.object(SiteQueue, "__init__", self.raising(OSError("down"))),
            self.assertRaisesMessage(QueueUnavailable, "_DEAD: down"),
        ):
            self.settle(consumer, reservation, "bury")
        self.assertTrue(self.settle(consumer, reservation, "ack"))
        self.check_counts()
