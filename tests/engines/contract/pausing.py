"""Pausing a queue: the reason lies in another queue of the same engine."""

from __future__ import annotations

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Counts
from mailqueue_backend.queues.paused import REASON_LENGTH, pause, paused_reason, resume

from .base import OpensQueues


class PauseContract(OpensQueues):
    """The promises of sibling(), pause(), resume() and paused_reason()."""

    def setUp(self) -> None:
        super().setUp()
        self.need("pausable")
        self.reasons = self.queue.sibling(self.queue.paused_name)
        self.addCleanup(self.reasons.read_many, 100)

    def check_reason(self, expected: str) -> None:
        self.assertEqual(paused_reason(self.queue), expected)

    def test_a_sibling_is_the_queue_of_that_name_on_the_same_engine(self) -> None:
        self.make_queue(self.dead.name).write(b"a")
        sibling = self.queue.sibling(self.dead.name)
        self.assertIs(type(sibling), type(self.queue))
        self.assertEqual(sibling.read(), b"a")

    def test_a_queue_is_paused_until_it_is_resumed(self) -> None:
        self.assertIsNone(paused_reason(self.queue))
        pause(self.queue, "the provider moves")
        self.check_reason("the provider moves")
        self.assertEqual(self.queue.counts(), Counts(0, 0, 0, 0, 0))
        self.assertTrue(resume(self.queue))
        self.assertFalse(resume(self.queue))
        self.assertIsNone(paused_reason(self.queue))

    def test_a_new_reason_replaces_the_old_one(self) -> None:
        pause(self.queue, "first")
        pause(self.queue, "zweiter, wegen Überlast")
        self.check_reason("zweiter, wegen Überlast")
        self.assertEqual(len(self.reasons), 1)

    def test_a_pause_needs_no_reason(self) -> None:
        pause(self.queue, "")
        self.check_reason("")

    def test_bytes_of_any_kind_are_a_reason(self) -> None:
        for payload, shown in (
            (b"a\x1b[2Jb\nc", "a [2Jb c"),
            (b"\xff\xfe", "\ufffd\ufffd"),
            (b"\x80\x04N.", "\ufffd N."),
            (b"long " * 1000, ("long " * 1000)[:REASON_LENGTH]),
        ):
            with self.subTest(payload[:9]):
                resume(self.queue)
                self.reasons.write(payload)
                self.check_reason(shown)

    def test_a_resume_that_was_killed_leaves_the_queue_paused(self) -> None:
        self.need("leases", "browsable")
        pause(self.queue, "moving")
        consumer = self.consumer(queue=self.reasons)
        self.reserve(consumer)
        self.check_reason("moving")
        with self.assertRaisesMessage(QueueUnavailable, "stays paused"):
            resume(self.queue)
        consumer.close()
        self.assertTrue(resume(self.queue))

    def test_the_newest_of_several_reasons_is_shown(self) -> None:
        self.reasons.write_many(b"a", b"b")
        self.check_reason("b")
        pause(self.queue, "c")
        self.check_reason("c")
        self.assertEqual(len(self.reasons), 1)

    def test_a_reason_that_lies_in_the_future_counts(self) -> None:
        self.need("delays", "browsable")
        pause(self.queue, "a clock was ahead")
        consumer = self.consumer(queue=self.reasons)
        self.settle(consumer, self.reserve(consumer), "release", None, 60)
        self.check_reason("a clock was ahead")
