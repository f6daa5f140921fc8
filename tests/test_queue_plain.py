"""Any queue-front module behind the contract: dummy, redisd, and the habits of others."""

from __future__ import annotations

import importlib
from unittest import mock

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import Counts, MessageQueue
from mailqueue_backend.queues.plain import PlainQueue
from tests import services
from tests.queue_contract import LONG, QueueContract, TakersContract


class OpensByName:
    def make_queue(self, name: str) -> MessageQueue:
        return open_queue(name)


@override_settings(QUEUE_BACKEND="dummy")
class DummyTests(OpensByName, QueueContract, TakersContract, SimpleTestCase):
    one_process_only = "queue-front's dummy lives in one process"


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="redisd")
class PlainRedisdTests(QueueContract, SimpleTestCase):
    """queue-front's own redisd, as a site's subclass of it would be used."""

    def make_queue(self, name: str) -> MessageQueue:
        return PlainQueue(importlib.import_module("queue_front.backends.redisd").Queue(name))

    def test_a_server_that_is_down_is_unavailable(self) -> None:
        import queue_front
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        self.queue.write(b"a")
        reservation = self.reserve()
        server = self.queue._queue._connection
        self.queue._queue._connection = Redis(port=1, retry=Retry(NoBackoff(), 0))
        for name, call in {
            "read": self.queue.read,
            "reserve": lambda: self.queue.reserve(LONG),
            "write": lambda: self.queue.write(b"a"),
            "write_many": lambda: self.queue.write_many(b"a", b"b"),
            "len": lambda: len(self.queue),
            "counts": self.queue.counts,
            "release": lambda: self.queue.release(reservation),
        }.items():
            with self.subTest(name):
                with self.assertRaises(QueueUnavailable) as caught:
                    call()
                self.assertIsInstance(caught.exception, queue_front.QueueException)
                self.assertIn(self.queue.name, str(caught.exception))
        self.queue._queue._connection = server
        self.assertTrue(self.queue.release(reservation))
        self.assertEqual(self.queue.read_many(2), [b"a"])


class Habits:
    """A queue of a site's own, in memory, whose habits can be changed."""

    stored: dict[str, list[bytes]] = {}

    def __init__(self, name: str) -> None:
        self.name = name
        self.payloads = self.stored.setdefault(name, [])

    def read(self):
        return self.payloads.pop(0) if self.payloads else self.say_empty()

    def say_empty(self):
        return None

    def write(self, payload):
        self.payloads.append(payload)
        return True

    def __len__(self):
        return len(self.payloads)


@override_settings(QUEUE_BACKEND="dummy")
class HabitsTests(SimpleTestCase):
    def setUp(self) -> None:
        self.QueueException = importlib.import_module("queue_front").QueueException
        self.addCleanup(Habits.stored.clear)

    def make(self, **habits) -> PlainQueue:
        return PlainQueue(type("Queue", (Habits,), habits)("mail"))

    def raising(self, error: BaseException):
        return mock.Mock(side_effect=error)

    def test_every_way_to_say_empty_is_none(self) -> None:
        for name, say_empty in {
            "None": lambda self: None,
            "IndexError": self.raising(IndexError("pop from empty list")),
            "QueueException": self.raising(self.QueueException("Empty")),
        }.items():
            with self.subTest(name):
                queue = self.make(say_empty=say_empty)
                self.assertIsNone(queue.read())
                self.assertIsNone(queue.reserve(LONG))
                self.assertEqual(queue.read_many(2), [])

    def test_a_queue_filled_after_it_said_empty_is_read_again(self) -> None:
        def fill_and_say_empty(queue):
            queue.write(b"late")
            raise self.QueueException("Empty")

        self.assertEqual(self.make(say_empty=fill_and_say_empty).read(), b"late")

    def test_a_queue_that_refuses_though_it_is_not_empty_is_unavailable(self) -> None:
        for error in (self.QueueException("no"), OSError("no")):
            with self.subTest(type(error).__name__):
                queue = self.make(read=self.raising(error), __len__=lambda self: 1)
                with self.assertRaisesMessage(QueueUnavailable, "cannot be read: no") as caught:
                    queue.read()
                self.assertIs(caught.exception.__cause__, error)

    def test_a_false_answer_to_a_write_is_an_error_that_tells_how_far_it_came(self) -> None:
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
        for habits in ({}, {"write_many": self.raising(NotImplementedError())}):
            with self.subTest(habits):
                queue = self.make(**habits)
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

    def test_what_cannot_be_written_back_stays_in_hand(self) -> None:
        for error, raised in ((OSError("down"), QueueUnavailable), (KeyboardInterrupt(), KeyboardInterrupt)):
            for settle in ("release", "bury"):
                with self.subTest(f"{type(error).__name__} in {settle}"):
                    queue = self.make()
                    queue.write(b"a")
                    reservation = queue.reserve(LONG)
                    with mock.patch.object(Habits, "write", self.raising(error)), self.assertRaises(raised):
                        getattr(queue, settle)(reservation)
                    self.assertEqual(queue.counts().reserved, 1)
                    self.assertTrue(queue.release(reservation))
                    self.assertEqual(queue.read_many(2), [b"a"])

    def test_a_dead_queue_that_cannot_be_opened_keeps_the_message_in_hand(self) -> None:
        queue = self.make()
        queue.write(b"a")
        reservation = queue.reserve(LONG)
        with (
            mock.patch.object(Habits, "__init__", self.raising(OSError("down"))),
            self.assertRaisesMessage(QueueUnavailable, "has no dead queue: down"),
        ):
            queue.bury(reservation)
        self.assertTrue(queue.ack(reservation))
        self.assertEqual(queue.counts(), Counts(0, 0, 0, 0, 0))
