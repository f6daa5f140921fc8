"""The interface of queue-front: write, read and length."""

from __future__ import annotations

import os
from unittest import mock

from mailqueue_backend.queues.base import Exchange

from .base import OpensQueues


class SurfaceContract(OpensQueues):
    """The promises of queue-front's interface."""

    def test_first_in_is_first_out(self) -> None:
        self.queue.write(b"1")
        self.queue.write_many(b"2", b"3", b"4")
        self.queue.write(b"5")
        self.assertEqual([self.queue.read() for _ in range(5)], [b"1", b"2", b"3", b"4", b"5"])

    def test_writing_returns_true_for_each_payload(self) -> None:
        self.assertIs(self.queue.write(b"a"), True)
        self.assertEqual(self.queue.write_many(b"b", b"c"), [True, True])

    def test_writing_nothing_changes_nothing(self) -> None:
        self.assertEqual(self.queue.write_many(), [])
        self.assertEqual(len(self.queue), 0)

    def test_an_empty_queue_has_nothing_to_read_or_reserve(self) -> None:
        self.assertIsNone(self.queue.read())
        self.assertEqual(self.queue.read_many(3), [])
        self.assertEqual(self.consumer().exchange(wanted=3), Exchange([], []))

    def test_payloads_come_back_unchanged(self) -> None:
        consumer = self.consumer()
        for payload in (bytes(range(256)), b"", b"\0", "ü\n".encode("utf-16"), os.urandom(3_000_000)):
            with self.subTest(length=len(payload)):
                self.queue.write(payload)
                reservation = self.reserve(consumer)
                self.assertTrue(reservation.payload == payload)
                self.settle(consumer, reservation, "release")
                self.assertTrue(self.queue.read() == payload)

    def test_a_payload_is_bytes(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.assertIs(type(self.queue.read()), bytes)
        self.assertIs(type(self.reserve().payload), bytes)

    def test_read_many_returns_at_most_as_many_as_asked_for(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertEqual(self.queue.read_many(2), [b"a", b"b"])
        self.assertEqual(self.queue.read_many(2), [b"c"])

    def test_length_counts_waiting_messages(self) -> None:
        self.queue.write_many(b"a", b"b", b"c")
        self.assertEqual(len(self.queue), 3)
        self.queue.read()
        self.reserve()
        self.assertEqual(len(self.queue), 1)

    def test_a_payload_above_the_limit_is_explained(self) -> None:
        self.assertEqual(self.queue.explain_size(b"a" * 100_000), "")
        limit = mock.patch.object(type(self.queue), "largest_payload", 499_999)
        with limit, mock.patch.object(type(self.queue), "stored_size", lambda queue, payload: len(payload)):
            self.assertEqual(self.queue.explain_size(b"a" * 499_999), "")
            self.assertIn("takes 500000 bytes", self.queue.explain_size(b"a" * 500_000))

    def test_queues_of_different_names_are_separate(self) -> None:
        other = self.make_queue(f"{self.queue.name}_2")
        self.queue.write(b"a")
        self.assertEqual(len(other), 0)
        self.assertIsNone(other.read())
        self.assertEqual(self.consumer(queue=other).exchange(wanted=1).reservations, [])

    def test_names_that_differ_in_case_are_of_separate_queues(self) -> None:
        other = self.make_queue(self.queue.name.swapcase())
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        self.settle(consumer, self.reserve(consumer), "bury")
        self.assertEqual(other.counts(), (0, 0, 0, 0, 0))
        self.assertEqual(self.consumer(queue=other).exchange(wanted=1).reservations, [])
        self.assertIsNone(other.read())
        if self.queue.browsable:
            self.assertEqual([*other.browse("due", 9), *other.browse("dead", 9)], [])
        self.assertEqual(self.queue.read(), b"b")

    def test_objects_of_the_same_name_share_one_queue(self) -> None:
        twin = self.consumer(queue=self.make_queue(self.queue.name))
        self.queue.write_many(b"a", b"b")
        reservation = self.reserve(twin)
        self.check_counts(waiting=1, reserved=1)
        self.assertTrue(self.settle(twin, reservation, "ack"))
        self.check_counts(waiting=1)

    def test_a_batch_is_stored_whole_or_not_at_all(self) -> None:
        self.need("atomic_batches")
        with self.assertRaises(Exception):  # noqa: B017, each driver has its own
            self.queue.write_many(b"a" * 2_000_000, b"b", object())  # type: ignore[arg-type]
        self.assertEqual(len(self.queue), 0)
