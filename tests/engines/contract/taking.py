"""Taking: reserve exactly the message that browse() has listed."""

from __future__ import annotations

import time

from mailqueue_backend.queues.base import Settlement

from .base import AFTER_SHORT, ENDINGS, LONG, SHORT, OpensQueues, payloads_of


class TakeContract(OpensQueues):
    """The promises of take()."""

    def test_exactly_that_message_is_taken_and_can_be_settled(self) -> None:
        consumer = self.consumer()
        left = {"ack": [b"a", b"c"], "release": [b"a", b"c", b"b"], "bury": [b"a", b"c"]}
        for how in ENDINGS:
            with self.subTest(how):
                self.queue.write_many(b"a", b"b", b"c")
                taken = consumer.take(self.entry(b"b"))
                assert taken is not None
                self.assertEqual((taken.payload, taken.deliveries), (b"b", 1))
                self.assertEqual(consumer.held, {taken.receipt: taken})
                self.check_counts(waiting=2, reserved=1)
                self.assertTrue(self.settle(consumer, taken, how))
                self.assertFalse(self.settle(consumer, taken, how))
                # A list cannot restore the place of a message that is put back.
                payloads = self.queue.read_many(4)
                self.assertEqual(payloads if how in left else sorted(payloads), left.get(how, [b"a", b"b", b"c"]))
                self.assertEqual(self.dead.read_many(2), [b"b"] if how == "bury" else [])

    def test_identical_messages_are_each_listed_and_taken(self) -> None:
        self.queue.write_many(*[b"same"] * 5, b"other")
        entries = self.pages("due")
        self.assertEqual(payloads_of(entries)[-1], b"other")
        self.assertGreaterEqual(payloads_of(entries).count(b"same"), 5)
        consumer = self.consumer()
        taken = [reservation for entry in entries if (reservation := consumer.take(entry))]
        self.assertEqual(sorted(payloads_of(taken)), [b"other"] + [b"same"] * 5)
        self.check_counts(reserved=6)

    def test_dead_message_that_a_process_held_when_it_died_is_listed_and_taken_again(self) -> None:
        self.need("leases")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "bury")
        for _ in range(2):
            (entry,) = self.pages("dead")
            operator = self.consumer(SHORT, queue=self.dead)
            taken = operator.take(entry)
            assert taken is not None
            self.assertEqual((taken.payload, self.queue.counts().dead), (b"a", 1))
            self.die(operator)
            time.sleep(AFTER_SHORT)

    def test_closing_puts_back_what_was_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        with self.queue.consumer(LONG) as consumer:
            consumer.take(self.entry(b"b"))
        self.check_counts(waiting=2)
        self.assertEqual({self.reserve().deliveries, self.reserve().deliveries}, {1})

    def test_a_reserved_message_is_not_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"a")
        self.reserve()
        consumer = self.consumer()
        for seen in (entry, self.entry(b"a", "reserved")):
            self.assertIsNone(consumer.take(seen))
        self.assertEqual(consumer.held, {})
        self.check_counts(waiting=1, reserved=1)

    def test_a_message_that_is_gone_is_not_taken(self) -> None:
        self.queue.write_many(b"a", b"b")
        entry = self.entry(b"a")
        self.queue.read()
        self.assertIsNone(self.consumer().take(entry))
        self.check_counts(waiting=1)

    def test_a_message_can_be_taken_after_its_lease(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        consumer = self.consumer()
        taken = consumer.take(self.entry(b"a"))
        assert taken is not None
        self.assertEqual((taken.payload, taken.deliveries), (b"a", 2))
        self.assertTrue(self.settle(consumer, taken, "ack"))
        self.check_counts(waiting=1)

    def test_a_dead_message_can_be_taken_from_the_dead_queue(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        consumer.exchange([Settlement(each, "bury") for each in consumer.exchange(wanted=2).reservations])
        dead = self.consumer(queue=self.dead)
        taken = dead.take(self.entry(b"b", "dead"))
        assert taken is not None
        self.assertEqual((taken.payload, taken.deliveries), (b"b", 1))
        self.assertTrue(self.settle(dead, taken, "ack"))
        self.check_counts(dead=1)
