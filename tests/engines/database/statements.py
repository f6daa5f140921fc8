"""Statements: how many each operation executes, and what they leave in the rows."""

from __future__ import annotations

import time
from datetime import timedelta
from time import monotonic
from unittest import mock

from django.db.models.signals import post_delete, pre_delete
from django.test.utils import CaptureQueriesContext

from mailqueue_backend.queues.base import EXCHANGE_BYTES, Settlement
from mailqueue_backend.queues.database import consumer as consumers
from mailqueue_backend.queues.database import fresh, sql
from mailqueue_backend.queues.database.models import Now, QueuedMessage
from tests.engines.contract.base import LONG, SHORT, acks, payloads_of

from .base import OnDatabase


class StatementContract(OnDatabase):
    """The promises about the queue's SQL."""

    def test_a_batch_is_cut_into_statements_of_limited_size(self) -> None:
        payloads = [b"1" * 150_000, b"2" * 150_000, b"3" * 150_000, b"4" * 3_000_000, b"5"]
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.write_many(*payloads)
        self.assertEqual(sum(query["sql"].startswith("INSERT") for query in queries), 4)
        self.assertTrue(self.queue.read_many(9) == payloads)

    def test_a_batch_is_cut_into_statements_of_limited_parameters(self) -> None:
        payloads = [b"%04d" % number for number in range(2 * sql.BATCH_ROWS + 1)]
        with CaptureQueriesContext(self.connection) as queries:
            self.queue.write_many(*payloads)
        self.assertEqual(sum(query["sql"].startswith("INSERT") for query in queries), 3)
        with self.queue.consumer(LONG) as consumer:
            self.assertEqual(payloads_of(consumer.exchange(wanted=len(payloads)).reservations), payloads)

    def test_writing_one_batch_is_one_statement(self) -> None:
        for payloads in ([b"a"], [b"b", b"c"]):
            with self.subTest(payloads), self.assertNumQueries(1, using=self.alias):
                self.queue.write_many(*payloads)

    def test_counting_is_one_query(self) -> None:
        for count in (self.queue.counts, self.queue.__len__):
            with self.subTest(count.__name__), self.assertNumQueries(1, using=self.alias):
                count()

    def test_an_ack_is_one_statement_whatever_signals_are_connected(self) -> None:
        def listener(**kwargs) -> None: ...

        for signal in (pre_delete, post_delete):
            signal.connect(listener)
            self.addCleanup(signal.disconnect, listener)
        self.queue.write(b"a")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        with self.assertNumQueries(1, using=self.alias):
            self.assertEqual(consumer.exchange(settlements).settled, [True])

    def test_an_empty_exchange_executes_no_statement(self) -> None:
        self.queue.write(b"a")
        consumer = self.consumer(SHORT)
        reservation = self.reserve(consumer)
        with self.assertNumQueries(0, using=self.alias):
            consumer.exchange()
            self.assertEqual(consumer.exchange([Settlement(reservation, "leave")]).settled, [True])
            consumer.close()

    def test_leaving_one_message_does_not_affect_the_other_settlements(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        a, b = consumer.exchange(wanted=2).reservations
        answer = consumer.exchange([Settlement(a, "leave"), Settlement(b, "ack")])
        self.assertEqual(answer.settled, [True, True])
        self.check_counts(waiting=1, reserved=1)

    @mock.patch.object(consumers, "SEARCH_INTERVAL", 60)
    def test_going_from_one_group_to_the_next_takes_three_statements(self) -> None:
        self.queue.write_many(*[b"%d" % number for number in range(9)])
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=4).reservations
        with CaptureQueriesContext(self.connection) as queries:
            self.assertEqual(len(consumer.exchange(acks(reservations), 4).reservations), 4)
        verbs = [query["sql"].split()[0] for query in queries]
        self.assertEqual([verb for verb in verbs if verb not in {"BEGIN", "COMMIT"}], ["DELETE", "SELECT", "UPDATE"])

    def test_an_extension_is_one_statement_for_each_group(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        reservations = [*consumer.exchange(wanted=2).reservations, self.reserve(consumer)]
        with self.assertNumQueries(2, using=self.alias):
            consumer.extend(reservations)

    def test_big_payloads_that_are_not_handed_out_are_not_read(self) -> None:
        payloads = [b"1" * EXCHANGE_BYTES, b"2" * EXCHANGE_BYTES]
        self.queue.write_many(*payloads)
        with CaptureQueriesContext(self.connection) as queries:
            self.assertTrue(payloads_of(self.consumer().exchange(wanted=2).reservations) == payloads[:1])
        self.assertEqual(sum(query["sql"].startswith("SELECT payload") for query in queries), 1)

    def test_rows_are_listed_in_the_order_of_the_index(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "release")
        self.assertEqual([bytes(row.payload) for row in self.rows.all()], [b"b", b"a"])
        self.assertEqual(str(self.rows.first()), f"{self.queue.name} #{self.rows.first().pk}")

    def test_a_row_that_is_due_late_is_found_after_those_that_follow(self) -> None:
        """A row is due when it is inserted, but visible to others only once its transaction is committed."""
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.reserve(consumer)
        self.rows.create(queue=self.queue.name, due=Now() - timedelta(hours=1), payload=b"late")
        self.assertEqual([self.reserve(consumer).payload for _ in range(3)], [b"b", b"c", b"late"])

    def test_a_row_that_is_due_late_waits_a_second_at_most(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        consumer = self.consumer()
        self.reserve(consumer)
        self.rows.create(queue=self.queue.name, due=Now() - timedelta(hours=1), payload=b"late")
        with mock.patch.object(fresh, "monotonic", return_value=monotonic() + fresh.RESTART_INTERVAL):
            self.assertEqual([self.reserve(consumer).payload for _ in range(3)], [b"late", b"b", b"c"])

    def test_a_row_that_was_put_back_is_the_first_again(self) -> None:
        for payload in (b"a", b"b", b"c"):
            self.queue.write(payload)
            time.sleep(0.002)  # SQLite's clock has milliseconds
        consumer = self.consumer()
        a, _ = consumer.exchange(wanted=2).reservations
        answer = consumer.exchange([Settlement(a, "put_back")], 2)
        self.assertEqual(payloads_of(answer.reservations), [b"a", b"c"])

    def test_put_back_restores_the_row(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        consumer = self.consumer()
        before = self.stored()
        suspect = self.reserve(consumer)
        self.settle(consumer, suspect, "put_back")
        for entry in self.queue.browse("due", 9):
            self.assertIsNotNone(consumer.take(entry))
        consumer.close()
        self.assertEqual(self.stored(), before)

    def stored(self) -> list[tuple]:
        with self.connection.cursor() as cursor:
            cursor.execute(
                f"SELECT id, CAST(due AS CHAR(40)), deliveries FROM {QueuedMessage._meta.db_table} ORDER BY id"
            )
            return list(cursor.fetchall())

    def test_rows_of_earlier_versions_are_delivered(self) -> None:
        for number, state in enumerate(({}, {"receipt": "f" * 32, "deliveries": 1}, {"deliveries": 0})):
            self.rows.create(queue=self.queue.name, due=Now(), payload=b"%d" % number, **state)
        self.rows.create(queue=self.queue.name, due=Now() + timedelta(seconds=LONG), payload=b"deferred")
        reserved = {"receipt": "e" * 32, "deliveries": 1}
        self.rows.create(queue=self.queue.name, due=Now() + timedelta(seconds=LONG), payload=b"reserved", **reserved)
        self.check_counts(waiting=4, due=3, deferred=1, reserved=1)
        consumer = self.consumer()
        suspect = self.reserve(consumer)
        self.assertEqual((suspect.payload, suspect.deliveries), (b"1", 2))
        answer = consumer.exchange(acks([suspect]), 3)
        self.assertEqual(payloads_of(answer.reservations), [b"0", b"2"])
