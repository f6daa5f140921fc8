"""Interrupts: a KeyboardInterrupt at any line loses no message and duplicates none."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from django.test import tag

from mailqueue_backend import queues
from mailqueue_backend.queues.base import Consumer, Entry, Settlement

from .base import LONG, OpensQueues


class Interrupter:
    """A context manager that raises, and catches, KeyboardInterrupt at the n-th line executed in the queues' files."""

    folders: tuple[str, ...] = tuple(queues.__path__)

    def __init__(self, lines: int) -> None:
        self.lines = self.left = lines
        self.where = ""

    def __enter__(self) -> None:
        self.tracer_before = sys.gettrace()
        sys.settrace(self.trace)

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self.folders):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                raise KeyboardInterrupt
        return self.trace

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        sys.settrace(self.tracer_before)
        return isinstance(error, KeyboardInterrupt)

    def __repr__(self) -> str:
        return f"interrupted at {self.where or 'no line'}, the {self.lines}th"


class InterruptContract(OpensQueues):
    """The promises after an interrupt."""

    @tag("slow")
    def test_an_interrupted_exchange_loses_and_duplicates_nothing(self) -> None:
        def exchange(consumer: Consumer, entry: Entry | None) -> None:
            a, b = consumer.held.values()
            consumer.exchange([Settlement(a, "ack"), Settlement(b, "release")], 2)

        self.check_interrupts(exchange, may_be_gone=b"a")

    @tag("slow")
    def test_an_interrupted_burial_loses_and_duplicates_nothing(self) -> None:
        def bury(consumer: Consumer, entry: Entry | None) -> None:
            consumer.exchange([Settlement(reservation, "bury") for reservation in consumer.held.values()])

        self.check_interrupts(bury)

    @tag("slow")
    def test_an_interrupted_close_can_be_repeated(self) -> None:
        self.check_interrupts(lambda consumer, entry: consumer.close())

    @tag("slow")
    def test_an_interrupted_take_loses_and_duplicates_nothing(self) -> None:
        self.need("browsable")
        self.check_interrupts(lambda consumer, entry: consumer.take(entry))

    def check_interrupts(
        self, action: Callable[[Consumer, Any], object], may_be_gone: bytes = b"", payloads: bytes = b"abcde"
    ) -> None:
        """Interrupt the action at each of its lines in turn; each time, close the consumer and compare what is left.

        The consumer holds the first two of five messages. ``action`` also receives the entry of the fourth, or None.
        """
        written = [payloads[index : index + 1] for index in range(len(payloads))]
        interrupter = Interrupter(0)
        while interrupter.left <= 0:
            interrupter = Interrupter(interrupter.lines + 1)
            self.empty()
            self.queue.write_many(*written)
            consumer = self.queue.consumer(LONG)
            consumer.exchange(wanted=2)
            entry = self.entry(written[3]) if self.queue.browsable else None
            with interrupter:
                action(consumer, entry)
            consumer.close()
            self.assertEqual((consumer.held, consumer._pending), ({}, ""), interrupter)
            self.assertEqual(self.queue.counts().reserved, 0, interrupter)
            left = sorted(self.queue.read_many(10) + self.dead.read_many(10))
            self.assertIn(left, (written, [payload for payload in written if payload != may_be_gone]), interrupter)
        self.assertGreater(interrupter.lines, 1)
