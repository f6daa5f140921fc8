"""The feed: what a drain leaves in the queue, in which order, and how much it holds meanwhile."""

from __future__ import annotations

import faulthandler
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest import mock

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connections
from django.db.backends.signals import connection_created
from django.test import SimpleTestCase, TransactionTestCase, override_settings, tag

from mailqueue_backend.delivery import feed, in_flight
from mailqueue_backend.delivery.limits import DrainOptions, Quota, StopRequest
from mailqueue_backend.delivery.policy import DELIVERED
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.envelope import loads
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Consumer, Counts, Exchange, Reservation, Settlement
from tests import services
from tests.kill.children import Site, quieten
from tests.scripted_cases import ThreadedQueue
from tests.scripted_server import Script, ScriptedServer, in_turn

if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object

#: Seconds in which a drain that hangs is found out.
TIMEOUT = 60
#: Enough for three workers.
MANY = [f"{number:02}" for number in range(60)]
Hook = Callable[..., Any]


class FeedMixin(Base):
    """A queue of its own for each test, a server, and drains."""

    engine: str

    def setUp(self) -> None:
        super().setUp()
        quieten(self)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        self.addCleanup(faulthandler.cancel_dump_traceback_later)
        log = tempfile.TemporaryDirectory()
        self.addCleanup(log.cleanup)
        site = Site(self.engine, MAIL_QUEUE_LOG_FILENAME=str(Path(log.name, "discards.log")))
        self.use(site.here())
        self.queue = site.queue()
        if self.engine == "dummy":
            self.queue = ThreadedQueue(self.queue.module_queue)  # type: ignore[attr-defined]
        self.addCleanup(lambda: self.queue.read_many(999))
        self.smtp = self.use(ScriptedServer(lambda step, argument: self.script(step, argument)))
        self.script: Script = lambda step, argument: None

    def use(self, context: Any) -> Any:
        """Enter a context until the test ends; Python < 3.11 has no enterContext()."""
        entered = context.__enter__()
        self.addCleanup(context.__exit__, None, None, None)
        return entered

    def need(self, ability: str) -> None:
        if not getattr(self.queue, ability):
            self.skipTest(f"{type(self.queue).__name__} has no {ability}")

    def set(self, **constants: float) -> None:
        """Change constants of the feed, or of what is in flight."""
        for name, value in constants.items():
            self.use(mock.patch.object(feed if hasattr(feed, name) else in_flight, name, value))

    def backend(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend, **options: Any) -> QueuedEmailBackend:
        backend = kind("127.0.0.1", self.smtp.port, timeout=10)
        backend.que, backend.options = self.queue, DrainOptions(**options)
        return backend

    def enqueue(self, *subjects: str) -> None:
        self.backend().send_messages([EmailMessage(subject, to=["to@example.com"]) for subject in subjects])

    def drain(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend, **options: Any) -> Report:
        backend = self.backend(kind, **{"workers": 1, **options})
        backend.send_queued_messages()
        return backend.report

    def down(self, **options: Any) -> Report:
        """Drain while nobody listens."""
        with mock.patch.object(self.smtp, "port", 9):
            return self.drain(**options)

    def start_anew(self) -> None:
        """Forget what was queued and sent."""
        self.queue.read_many(999)
        self.smtp.stored.clear()

    def sent(self) -> list[str]:
        return [stored.subject for stored in self.smtp.stored]

    def left(self) -> list[Any]:
        """Look at what is queued, in order."""
        payloads = self.queue.read_many(999)
        if payloads:
            self.queue.write_many(*payloads)
        return [loads(payload) for payload in payloads]

    def subjects(self) -> list[str]:
        return [envelope.email.subject for envelope in self.left()]

    def assertLeft(self, *subjects: str) -> None:
        """These are queued, in this order (or any, where the engine keeps none), and nobody has any in hand."""
        self.assertEqual(self.queue.counts().reserved, 0)
        if self.queue.keeps_place:
            self.assertEqual(self.subjects(), list(subjects))
        self.assertEqual(Counter(self.subjects()), Counter(subjects))

    def watch(self, step: str = "RCPT", delay: float = 0.0) -> list[Counts]:
        """Count the queue each time that the server is at a step."""
        seen: list[Counts] = []

        def script(reached: str, argument: str) -> None:
            if reached == step:
                try:
                    seen.append(self.queue.counts())
                finally:
                    connections.close_all()
                time.sleep(delay)

        self.script = script
        return seen

    def die(self) -> None:
        """Let a process die that has the first message in hand, and its lease end."""
        consumer = self.queue.consumer(0.05)
        consumer.exchange(wanted=1)
        consumer.held.clear()
        time.sleep(0.1)


class OrderContract(FeedMixin):
    """What is not delivered stays where it is."""

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
                # It answers when the workers have been sent home.
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
        self.script = lambda step, argument: "450 later" if step == "dot" else None
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

    def test_interrupt_while_several_work_keeps_the_order(self) -> None:
        self.enqueue(*MANY)
        with mock.patch.object(feed.Feed, "_wait", side_effect=KeyboardInterrupt), self.assertRaises(KeyboardInterrupt):
            self.drain(workers=3)
        self.assertEqual(Counter(self.sent() + self.subjects()), Counter(MANY))
        self.assertLeft(*sorted(self.subjects()))


class Interrupted(QueuedEmailBackend):
    """Is interrupted by the third message."""

    def _send_now(self, message: Any) -> Any:
        if message.subject == "c":
            raise KeyboardInterrupt
        return super()._send_now(message)


class UnavailableContract(FeedMixin):
    """A queue that does not answer costs neither a message nor a second copy."""

    def lose(self, first: int, amount: int = 1, carried_out: bool = False) -> Any:
        """Let so many exchanges of a drain fail, from the first-th on; the engine may have carried them out."""
        kind = type(self.queue.consumer(1))
        exchange, calls = kind._exchange, iter(range(1, 999))

        def lossy(consumer: Any, *arguments: Any) -> Exchange:
            failing = first <= next(calls) < first + amount
            if failing and not carried_out:
                raise QueueUnavailable("It restarts.")
            answer = exchange(consumer, *arguments)
            if failing:
                raise QueueUnavailable("The answer was lost.")
            return answer

        return mock.patch.object(kind, "_exchange", lossy)

    def test_lost_exchange_costs_neither_message_nor_copy(self) -> None:
        self.set(PAUSES=(0, 0, 0), FAST=0)
        for workers, first, carried_out in product((1, 3), (1, 2, 3, 5), (False, True)):
            with self.subTest(workers=workers, first=first, carried_out=carried_out):
                self.start_anew()
                self.enqueue(*MANY[:50])
                with self.lose(first, carried_out=carried_out):
                    report = self.drain(workers=workers)
                self.assertEqual((report.sent, sorted(self.sent())), (50, MANY[:50]))
                self.assertLeft()

    def test_lost_exchange_at_the_end_costs_neither(self) -> None:
        self.set(PAUSES=(0, 0, 0))
        for carried_out in (False, True):
            with self.subTest(carried_out=carried_out):
                self.start_anew()
                self.enqueue("a")
                with self.lose(2, carried_out=carried_out):
                    report = self.drain()
                self.assertEqual((report.sent, self.sent()), (1, ["a"]))
                self.assertLeft()

    def test_queue_that_is_away_raises(self) -> None:
        self.set(PAUSES=(0, 0, 0))
        self.enqueue("a", "b")
        with self.lose(1, amount=999), self.assertRaises(QueueUnavailable):
            self.drain()
        self.assertEqual(self.sent(), [])
        self.assertLeft("a", "b")

    def test_delivered_message_is_settled_when_the_queue_comes_back_within_the_lease(self) -> None:
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a", "b")
        with self.lose(2, amount=30):
            self.drain()
        self.assertEqual(self.sent(), ["a", "b"])
        self.assertLeft()

    @override_settings(MAIL_QUEUE_LEASE=0.4)
    def test_queue_that_is_away_for_longer_raises(self) -> None:
        self.set(PAUSES=(0, 0, 0.01))
        self.enqueue("a", "b")
        began = time.monotonic()
        with self.lose(2, amount=999), self.assertRaises(QueueUnavailable):
            self.drain()
        self.assertLess(time.monotonic() - began, 2)


class HoldingContract(FeedMixin):
    """How many messages a drain reserves, and for how long."""

    def test_several_workers_hold_one_each_and_eight_more(self) -> None:
        seen = self.watch(delay=0.01)
        self.enqueue(*MANY)
        self.drain(workers=3)
        most = 3 + feed.READY if self.queue.leases else 3
        self.assertLessEqual(max(counts.reserved for counts in seen), most)
        self.assertGreaterEqual(max(counts.reserved for counts in seen), 3)

    def test_slow_message_is_settled_before_the_next_begins(self) -> None:
        seen = self.watch(delay=2 * feed.FAST)
        self.enqueue("a", "b", "c", "d")
        self.drain()
        self.assertEqual([counts.waiting + counts.reserved for counts in seen], [4, 3, 2, 1])

    def test_fast_messages_are_settled_in_groups(self) -> None:
        self.need("leases")
        self.set(FAST=60)
        self.enqueue(*MANY[:16])
        self.assertEqual(self.exchanges(), [(0, 8), (8, 8), (8, 0)])

    def test_class_with_a_hook_has_groups_of_one(self) -> None:
        self.enqueue("a", "b", "c")
        self.assertEqual(self.exchanges(Hooked), [(0, 1), (1, 1), (1, 1), (1, 0)])

    def exchanges(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend) -> list[tuple[int, int]]:
        """Drain; return how many were settled, and how many wanted, by each exchange."""
        seen: list[tuple[int, int]] = []
        exchange = Consumer.exchange

        def noted(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            seen.append((len(settlements), wanted))
            return exchange(consumer, settlements, wanted)

        with mock.patch.object(Consumer, "exchange", noted):
            self.drain(kind)
        return seen

    @tag("slow")
    @override_settings(MAIL_QUEUE_LEASE=1.0)
    def test_leases_of_ready_messages_are_extended(self) -> None:
        self.need("leases")
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 4))
        self.watch(delay=0.2)
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.start_anew()
                self.enqueue(*"abcdefgh")
                with self.another_consumer() as stolen:
                    self.drain(workers=workers)
                self.assertEqual((stolen, sorted(self.sent())), ([], list("abcdefgh")))

    def test_ready_messages_are_dropped_that_another_drain_may_hold(self) -> None:
        self.need("leases")
        self.enqueue("a", "b", "c")
        owner = feed.Feed(self.queue, 60, Quota(3, DrainOptions()), Report(), feed.READY, lambda: True)
        first = owner.next()
        assert first is not None
        first.disposition = DELIVERED
        owner.outbox.put(first)
        for delivery in owner.in_flight._deliveries.values():
            delivery.reserved_at -= 61  # as after a SIGSTOP
        self.assertIsNone(owner.next())
        owner.close()
        self.assertEqual(self.queue.counts()[:4], (2, 2, 0, 0))

    def test_exchange_that_takes_longer_than_a_tiny_lease_loses_nothing(self) -> None:
        self.need("leases")
        self.enqueue("a", "b")
        with override_settings(MAIL_QUEUE_LEASE=0.01), self.slow_exchanges(0.05):
            self.drain(workers=1)
        self.assertEqual(self.sent(), ["a", "b"])

    @contextmanager
    def slow_exchanges(self, seconds: float) -> Iterator[None]:
        exchange = Consumer.exchange

        def late(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            answer = exchange(consumer, settlements, wanted)
            time.sleep(seconds)
            return answer

        with mock.patch.object(Consumer, "exchange", late):
            yield

    @contextmanager
    def another_consumer(self) -> Iterator[list[Reservation]]:
        """Be, in another thread, a consumer who wants what nobody holds."""
        taken: list[Reservation] = []
        over = threading.Event()

        def take() -> None:
            consumer = self.queue.consumer(60)
            over.wait(0.3)
            while not over.wait(0.05):
                taken.extend(consumer.exchange(wanted=1).reservations)
            consumer.close()
            connections.close_all()

        thread = threading.Thread(target=take)
        thread.start()
        try:
            yield taken
        finally:
            over.set()
            thread.join()


class Hooked(QueuedEmailBackend):
    def _send_queued_messages(self, *arguments: Any) -> Any:
        return super()._send_queued_messages(*arguments)


class SuspectContract(FeedMixin):
    """A message that was in the hand of a process that died."""

    def test_it_is_delivered_alone_and_first(self) -> None:
        self.need("leases")
        for workers in (1, 2):
            with self.subTest(workers=workers):
                self.start_anew()
                reserved = self.watch("dot")
                self.enqueue(*MANY[:40])
                self.die()
                self.drain(workers=workers)
                self.assertEqual((self.sent()[0], sorted(self.sent())), ("00", MANY[:40]))
                self.assertEqual(reserved[0].reserved, 1)

    def test_busy_drain_runs_dry_for_one_that_appears(self) -> None:
        self.need("leases")
        self.set(SUSPECTS_WAIT=0.05)
        self.enqueue(*MANY)
        appeared = threading.Event()

        def script(step: str, argument: str) -> None:
            if step == "dot" and not appeared.is_set() and len(self.smtp.stored) >= 3:
                appeared.set()
                self.die()
                connections.close_all()
            time.sleep(0.005 if step == "dot" else 0)

        self.script = script
        with mock.patch("mailqueue_backend.queues.database.consumer.SEARCH_INTERVAL", 0.05):
            report = self.drain(workers=3)
        self.assertEqual((report.sent, sorted(self.sent())), (60, MANY))
        self.assertLeft()


class LostConnectionContract(FeedMixin):
    """An engine whose connection died hands out again what was not settled."""

    def test_what_was_not_begun_is_dropped_and_comes_again(self) -> None:
        self.need("leases")
        self.set(FAST=0)
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.start_anew()
                self.enqueue(*MANY)
                with self.losing(at=4):
                    report = self.drain(workers=workers)
                self.drain()
                self.assertEqual(set(self.sent()), set(MANY))
                self.assertLeft()
                # What was begun, or delivered and not settled, comes again; nothing else.
                self.assertLessEqual(len(self.sent()), 60 + workers + feed.READY)
                self.assertGreaterEqual(report.sent, 50)

    def losing(self, at: int) -> Any:
        """Let the connection die at an exchange: all that was held is due again."""
        exchange, calls = Consumer.exchange, iter(range(1, 999))

        def lossy(consumer: Consumer, settlements: Any = (), wanted: int = 0) -> Exchange:
            answer = exchange(consumer, settlements, wanted)
            if next(calls) != at:
                return answer
            exchange(consumer, [Settlement(one, "put_back") for one in consumer.held.values()])
            return answer._replace(reservations=[], lost=True)

        return mock.patch.object(Consumer, "exchange", lossy)


class FeedContract(OrderContract, UnavailableContract, HoldingContract, SuspectContract, LostConnectionContract):
    """Every promise."""


class DatabaseFeedTests(FeedContract, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisFeedTests(FeedContract, SimpleTestCase):
    engine = "redis"


class PlainFeedTests(FeedContract, SimpleTestCase):
    engine = "dummy"


@services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
class ConnectionsTests(FeedMixin, TransactionTestCase):
    engine = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)

    def test_eight_workers_use_one_connection_to_the_database(self) -> None:
        made: list[Any] = []
        connections["postgresql"].close()
        self.use(mock.patch("mailqueue_backend.delivery.drain.MESSAGES_PER_WORKER", 2))
        self.enqueue(*MANY)
        connections["postgresql"].close()
        note = lambda connection, **kwargs: made.append(connection)  # noqa: E731
        connection_created.connect(note)
        self.script = lambda step, argument: time.sleep(0.02) if step == "dot" else None
        self.addCleanup(connection_created.disconnect, note)
        report = self.drain(workers=8)
        self.assertEqual((report.sent, len(made)), (60, 1))
        self.assertGreater(self.smtp.connections, 2)
