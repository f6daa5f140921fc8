"""Looking at a queue and acting on its messages, on each engine."""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any
from unittest import mock, skipUnless

from django.conf import settings
from django.db import connections
from django.test import SimpleTestCase, TransactionTestCase, override_settings

from mailqueue_backend.envelope import META_KEY, dumps, loads
from mailqueue_backend.errors import DiscardLogError, QueueUnavailable
from mailqueue_backend.inspection.acting import IS_GONE, IS_RESERVED, Action, Discard, Retry, Revive, act, act_on_all
from mailqueue_backend.inspection.figures import look_at
from mailqueue_backend.inspection.listing import Criteria, find, list_messages
from mailqueue_backend.inspection.messages import Message
from mailqueue_backend.queues import paused
from mailqueue_backend.queues.base import Consumer, Counts, Reservation, Settlement, State
from mailqueue_backend.settings import conf
from tests import services

from .feed.base import FeedMixin

#: Seconds of a delay that no test outlasts.
LONG = 3000


class InspectionContract(FeedMixin):
    """What the command promises, whatever the engine."""

    def setUp(self) -> None:
        super().setUp()
        self.dead = self.queue.sibling(self.queue.dead_name)
        self.addCleanup(self.dead.read_many, 999)

    def enqueue_with_ids(self, *ids: str) -> None:
        """Queue a message for each id, with the id as its subject."""
        for number in ids:
            self.enqueue(number)
            payload = self.queue.read_many(99)
            envelope = loads(payload.pop())
            envelope.extra[META_KEY] = {"id": number}
            self.queue.write_many(*payload, dumps(envelope))

    def consumer(self) -> Consumer:
        return self.use(self.queue.consumer(LONG))  # type: ignore[no-any-return]

    def take(self, consumer: Consumer) -> Reservation:
        (reservation,) = consumer.exchange(wanted=1).reservations
        return reservation

    def settle_first(self, how: Any, **more: Any) -> None:
        with self.queue.consumer(LONG) as consumer:
            consumer.exchange([Settlement(self.take(consumer), how, **more)])

    def fill(self) -> None:
        """Put one message into each state, with the state as its subject."""
        self.enqueue("deferred", "dead", "reserved", "due")
        self.settle_first("release", delay=LONG)
        self.settle_first("bury")
        self.take(self.consumer())

    def listed(self, *states: State) -> list[Message]:
        return list(list_messages(self.queue, states or ("due", "deferred", "reserved", "dead")))

    def ids(self, *states: State) -> list[str]:
        return [message.id for message in self.listed(*states)]

    def act(self, action: Action, *ids: str) -> list[str]:
        """Act on the messages of these ids, or on all; return the reasons for skipping, or "" for each."""
        results = act(action, find([self.queue], ids)) if ids else act_on_all(action, self.queue)
        return [problem for _, problem in results]

    def log(self) -> str:
        path = Path(conf.MAIL_QUEUE_LOG_FILENAME)
        return path.read_text() if path.exists() else ""

    # looking

    def test_each_state_is_listed(self) -> None:
        self.fill()
        self.assertEqual([message.subject for message in self.listed()], ["due", "deferred", "reserved", "dead"])
        self.assertEqual([message.entry.state for message in self.listed("dead")], ["dead"])
        self.assertIsNone(self.listed("dead")[0].due)
        self.assertAlmostEqual(self.listed("deferred")[0].due or 0, time.time() + LONG, delta=60)

    def test_more_than_a_page_is_listed(self) -> None:
        self.enqueue(*[f"{number:02}" for number in range(25)])
        self.assertEqual([message.subject for message in self.listed("due")], [f"{number:02}" for number in range(25)])

    def test_criteria_filter(self) -> None:
        self.enqueue("Order 1", "Order 2", "Invoice")
        for criteria, expected in (
            (Criteria(), 3),
            (Criteria(subject="ORDER"), 2),
            (Criteria(recipient="to@"), 3),
            (Criteria(recipient="nobody@"), 0),
            (Criteria(sender="webmaster"), 3),
            (Criteria(sender="other"), 0),
            (Criteria(older_than=0), 3),
            (Criteria(older_than=60), 0),
        ):
            with self.subTest(criteria):
                self.assertEqual(sum(map(criteria.match, self.listed())), expected)

    def test_an_id_is_found_by_its_first_digits(self) -> None:
        self.enqueue_with_ids("0123456789ab", "0123ffffffff")
        self.assertEqual([message.id for message in find([self.queue], ["01234", "0123f"])], self.ids())
        with self.assertRaisesMessage(
            LookupError, "0123 is ambiguous. Write more digits of one of these: 0123456789ab, 0123f"
        ):
            find([self.queue], ["0123"])
        with self.assertRaisesMessage(LookupError, f"There is no message ffff in {self.queue.name}."):
            find([self.queue], ["0123f", "ffff"])

    def test_a_message_that_moves_during_the_search_is_found(self) -> None:
        self.enqueue("a")
        (number,) = self.ids()
        with mock.patch.object(
            type(self.queue), "browse", side_effect=[[], [], [], [], *[self.queue.browse("due", 9), []] * 4]
        ):
            self.assertEqual(find([self.queue], [number])[0].subject, "a")

    def test_a_payload_without_a_date_waits_since_it_is_due(self) -> None:
        self.queue.write(b"garbage")
        oldest = look_at(self.queue).oldest
        self.assertEqual(oldest, self.queue.browse("due", 1)[0].due)

    def test_figures_show_the_oldest_message_and_the_last_error(self) -> None:
        self.enqueue("a", "b")
        with self.queue.consumer(LONG) as consumer:
            for error in ("first", "second"):
                reservation = self.take(consumer)
                envelope = loads(reservation.payload)
                envelope.meta.note_failure(error)
                envelope.meta.write(envelope.extra)
                consumer.exchange([Settlement(reservation, "release", dumps(envelope))])
        oldest = min(message.created or 0 for message in self.listed())
        self.assertEqual(look_at(self.queue), (self.queue.name, Counts(2, 2, 0, 0, 0), oldest, "second", None))

    def test_figures_open_a_bounded_number_of_messages(self) -> None:
        self.enqueue(*map(str, range(30)))
        with (
            mock.patch("mailqueue_backend.inspection.figures.LOOKED_AT", 20),
            mock.patch("mailqueue_backend.inspection.messages.loads", side_effect=loads) as opening,
        ):
            look_at(self.queue)
        self.assertEqual(opening.call_count, 20)

    def test_figures_of_a_paused_queue(self) -> None:
        self.addCleanup(paused.resume, self.queue)
        paused.pause(self.queue, "the provider moves")
        self.assertEqual(look_at(self.queue), (self.queue.name, Counts(0, 0, 0, 0, 0), None, "", "the provider moves"))

    # retry

    def test_retry_makes_a_message_due_now(self) -> None:
        self.enqueue("a", "b", "c")
        self.settle_first("release", delay=LONG)
        self.settle_first("release", delay=LONG)
        self.assertEqual(self.act(Retry(), self.ids("deferred")[0]), [""])
        self.assertEqual(self.queue.counts(), Counts(3, 2, 1, 0, 0))
        self.assertEqual(self.act(Retry()), [""])
        self.assertEqual(self.queue.counts(), Counts(3, 3, 0, 0, 0))
        self.assertLeft("c", "a", "b")

    def test_retry_changes_nothing_for_a_due_message(self) -> None:
        self.enqueue("a", "b")
        self.assertEqual(self.act(Retry(), self.ids("due")[0]), [""])
        self.assertEqual(self.act(Retry()), [])
        self.assertLeft("a", "b")

    def test_retry_skips_reserved_and_dead_messages(self) -> None:
        self.fill()
        ids = [message.id for message in self.listed("reserved", "dead")]
        self.assertEqual(self.act(Retry(), *ids), [IS_RESERVED, "it is dead: revive it"])
        self.assertEqual(self.queue.counts(), Counts(2, 1, 1, 1, 1))

    def test_a_message_that_a_drain_took_meanwhile_is_skipped(self) -> None:
        self.enqueue("a")
        messages = self.listed()
        self.take(self.consumer())
        self.assertEqual([problem for _, problem in act(Discard(), messages)], [IS_GONE])
        self.assertEqual(self.queue.counts().reserved, 1)

    # discard

    def test_discard_writes_a_line_and_deletes(self) -> None:
        self.fill()
        ids = [message.id for message in self.listed("due", "deferred", "dead")]
        self.assertEqual(self.act(Discard(), *ids), ["", "", ""])
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 1, 0))
        lines = self.log().splitlines()
        for number, line in zip(ids, lines, strict=True):
            self.assertRegex(line, rf"Message Discarded\. .*To:to@example.com\. Error: .* Id: {number}\. Message-ID: <")

    def test_discard_all_takes_every_state_but_reserved(self) -> None:
        self.fill()
        self.dead.write(b"garbage")
        self.assertEqual(self.act(Discard()), ["", "", "", ""])
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 1, 0))
        self.assertIn("Subject: , From:, To:. Error: discarded by an operator; last error: the payload", self.log())

    def test_messages_that_are_queued_meanwhile_stay(self) -> None:
        self.enqueue("a", "b")
        for _ in act_on_all(Discard(), self.queue):
            self.enqueue("new")
        self.assertLeft("new", "new")

    def test_discard_keeps_a_message_whose_line_cannot_be_written(self) -> None:
        self.enqueue("a", "b")
        with (
            override_settings(MAIL_QUEUE_LOG_FILENAME="/nonexistent/log"),
            mock.patch.object(logging, "raiseExceptions", False),
            self.assertRaises(DiscardLogError),
        ):
            self.act(Discard())
        self.assertLeft("a", "b")

    # revive

    def bury_all(self, *subjects: str) -> None:
        self.enqueue(*subjects)
        for _ in subjects:
            self.settle_first("bury")

    def test_revive_moves_messages_back_with_their_record(self) -> None:
        self.enqueue_with_ids("0123456789ab")
        self.settle_first("bury")
        self.assertEqual(self.act(Revive(), "0123"), [""])
        self.assertEqual((self.ids("due"), self.queue.counts().dead), (["0123456789ab"], 0))

    def test_revive_starts_the_count_of_deliveries_again(self) -> None:
        self.enqueue("deadly")
        for _ in range(3):
            self.die()
        with self.assertLogs("mailqueue_backend.delivery"):
            self.drain()
        self.assertEqual(self.queue.counts().dead, 1)
        self.assertEqual(self.act(Revive()), [""])
        self.assertEqual([entry.deliveries for entry in self.queue.browse("due", 9)], [0])
        self.drain()
        self.assertEqual(self.sent(), ["deadly"])

    def test_revive_needs_trust_for_what_it_cannot_open(self) -> None:
        self.bury_all("a", "b")
        with override_settings(SECRET_KEY="lost"):
            self.bury_all("c", "d")
        self.assertEqual(len([each for each in self.act(Revive()) if "add --trust" in each]), 2)
        self.assertEqual(self.queue.counts(), Counts(2, 2, 0, 0, 2))
        self.assertEqual(self.act(Revive(trust=True)), ["", ""])
        self.assertLeft("a", "b", "c", "d")

    def test_trust_does_not_revive_what_no_drain_could_open(self) -> None:
        self.dead.write_many(b"garbage", b"\x80\x04N.")
        self.assertRegex(" ".join(self.act(Revive(trust=True))), "it cannot be opened: .* it cannot be opened: .*")
        self.assertEqual(self.dead.read_many(9), [b"garbage", b"\x80\x04N."])

    def test_revive_goes_through_many_that_stay(self) -> None:
        garbage = [b"garbage %d" % number for number in range(29)]
        self.dead.write_many(*garbage)
        self.bury_all("a", "b")
        results = self.act(Revive())
        self.assertEqual((len(results), results[29:]), (31, ["", ""]))
        self.assertEqual(self.dead.read_many(99), garbage)
        self.assertLeft("a", "b")

    def test_a_message_that_cannot_be_written_stays_dead(self) -> None:
        self.bury_all("a")
        with (
            mock.patch.object(type(self.queue), "write_many", side_effect=QueueUnavailable("full")),
            self.assertRaises(QueueUnavailable),
        ):
            self.act(Revive())
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 1))

    def test_only_dead_messages_are_revived(self) -> None:
        self.enqueue("a")
        self.assertEqual(self.act(Revive(), *self.ids()), ["it is not dead"])


class DatabaseInspectionTests(InspectionContract, TransactionTestCase):
    engine = "sqlite"

    def test_sqlite_without_wal_is_reported(self) -> None:
        with connections["default"].cursor() as cursor:
            self.assertRegex(self.queue.warnings()[0], 'journal mode delete: .* Run once: sqlite3 .*"PRAGMA')
            cursor.execute("PRAGMA journal_mode=WAL")
            try:
                self.assertEqual(self.queue.warnings(), [])
            finally:
                cursor.execute("PRAGMA journal_mode=DELETE")


@skipUnless("postgresql" in settings.DATABASES, "PostgreSQL does not answer, or its driver is not installed")
class PostgreSQLInspectionTests(InspectionContract, TransactionTestCase):
    engine = "postgresql"
    databases = {"default"} | ({"postgresql"} & set(settings.DATABASES))

    def test_only_sqlite_has_a_journal_mode(self) -> None:
        self.assertEqual(self.queue.warnings(), [])


@services.needs("Redis", services.redis_answers())
class RedisInspectionTests(InspectionContract, SimpleTestCase):
    engine = "redis"

    def the_list(self) -> int:
        return int(self.queue._server.client.llen(self.queue.name))  # type: ignore[attr-defined]

    def test_retry_returns_all_messages_to_the_list_of_the_old_release(self) -> None:
        self.enqueue("deferred", "due again", "left by a drain", "in the list")
        self.settle_first("release", delay=LONG)
        consumer = self.queue.consumer(0.05)
        due_again, _ = consumer.exchange(wanted=2).reservations
        consumer.exchange([Settlement(due_again, "release", delay=0.001)])
        consumer.held.clear()
        time.sleep(0.1)
        self.assertEqual((self.the_list(), self.queue.counts()), (1, Counts(4, 3, 1, 0, 0)))
        self.assertEqual(self.act(Retry()), ["", "", ""])
        self.assertEqual((self.the_list(), self.queue.counts()), (4, Counts(4, 4, 0, 0, 0)))
