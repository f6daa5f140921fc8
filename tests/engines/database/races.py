"""Races: another consumer takes a message first."""

from __future__ import annotations

from unittest import mock

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import EXCHANGE_BYTES
from mailqueue_backend.queues.database import consumer as consumers
from mailqueue_backend.queues.database import queue as module
from mailqueue_backend.queues.database import sql
from mailqueue_backend.queues.database.models import QueuedMessage
from tests.engines.contract.base import LONG, acks, payloads_of

from .base import OnDatabase


class RaceContract(OnDatabase):
    """The promises of a claim among other consumers."""

    def test_take_first_collects_the_reservations_of_a_lost_answer(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"b")
        with self.queue.consumer(LONG) as consumer:
            self.lose_answers(consumer)
            with self.assertRaises(QueueUnavailable):
                consumer.exchange(wanted=1)
            taken = consumer.take(entry)
            self.assertEqual(payloads_of(list(consumer.held.values())), [b"a", b"b"])
            self.assertEqual(consumer.exchange(acks([taken])).settled, [True])
        self.check_counts(waiting=1)

    def test_a_message_that_another_consumer_takes_first_is_skipped(self) -> None:
        other = self.consumer()
        for verb, take in (("UPDATE", lambda: self.reserve().payload), ("DELETE", self.queue.read)):
            with self.subTest(verb):
                self.queue.write_many(b"a", b"b")
                with self.just_before(verb, lambda: other.exchange(wanted=1)):
                    self.assertEqual(take(), b"b")
                self.empty_table()

    def test_the_rest_of_a_group_is_claimed(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        other, consumer = self.consumer(), self.consumer()
        with self.just_before("UPDATE", lambda: other.exchange(wanted=1)):
            answer = consumer.exchange(wanted=2)
        self.assertEqual([(each.payload, each.deliveries) for each in answer.reservations], [(b"b", 1)])
        self.assertEqual(payloads_of(list(other.held.values())), [b"a"])
        self.check_counts(waiting=1, reserved=2)

    def test_the_queue_is_searched_again_when_others_take_the_whole_group(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        settlements = acks([self.reserve(consumer)])
        with self.just_before("UPDATE", self.take_and_write_another):
            answer = consumer.exchange(settlements, 1)
        self.assertEqual((answer.settled, payloads_of(answer.reservations)), ([True], [b"c"]))

    def take_and_write_another(self) -> None:
        self.rows.filter(payload=b"b").delete()
        self.queue.write(b"c")

    def test_exchange_gives_up_when_every_claim_is_lost(self) -> None:
        self.queue.write(b"a")
        table = QueuedMessage._meta.db_table
        fails = f"UPDATE {table} SET receipt = %s WHERE id = -1 AND deliveries = %s AND queue = %s AND id = %s"
        with mock.patch.object(sql, "claim", return_value=sql.CompiledSQL(fails)) as claim:
            self.assertEqual(self.consumer().exchange(wanted=1).reservations, [])
        self.assertEqual(claim.call_count, consumers.SELECTS)

    def test_read_gives_up_when_every_delete_is_lost(self) -> None:
        self.queue.write(b"a")
        fails = (
            f"DELETE FROM {QueuedMessage._meta.db_table} WHERE id = -1 AND deliveries = %s AND queue = %s AND id = %s"
        )
        with mock.patch.object(sql, "delete_unclaimed", return_value=fails) as delete:
            self.assertIsNone(self.queue.read())
        self.assertEqual(delete.call_count, module.SELECTS)

    def test_a_big_payload_that_is_read_by_others_meanwhile_is_skipped(self) -> None:
        self.queue.write_many(b"a" * EXCHANGE_BYTES, b"b")
        with self.just_before("SELECT payload", self.rows.filter(queue=self.queue.name).earliest("pk").delete):
            self.assertEqual(payloads_of(self.consumer().exchange(wanted=2).reservations), [b"b"])

    def empty_table(self) -> None:
        self.rows.all().delete()

    def just_before(self, verb: str, *acts):
        """Return a context manager that calls the next of ``acts`` before each statement that begins with this verb."""
        left = list(acts)

        def wrapper(execute, sql, params, many, context):
            if left and sql.startswith(verb) and "id = -1" not in sql:
                left.pop(0)()
            return execute(sql, params, many, context)

        return self.connection.execute_wrapper(wrapper)
