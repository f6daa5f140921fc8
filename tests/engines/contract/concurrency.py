"""Concurrent consumers, in threads and in processes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from django.db import connections
from django.test import tag

from mailqueue_backend.queues.base import MessageQueue
from tests.engines.takers import spawn, take_all

from .base import LONG, OpensQueues, acks, payloads_of


class ConcurrencyContract(OpensQueues):
    """The promises to concurrent consumers."""

    #: Why other processes cannot reach the queue; "": they can.
    one_process_only = ""

    def fill(self, amount: int) -> list[bytes]:
        payloads = [b"%04d" % number for number in range(amount)]
        self.queue.write_many(*payloads)
        return payloads

    # threads

    def test_threads_that_reserve_get_each_message_once(self) -> None:
        payloads = self.fill(160)
        self.assertEqual(self.taken_by_threads(take_all), payloads)
        self.check_counts()

    def test_threads_that_read_get_each_message_once(self) -> None:
        payloads = self.fill(80)
        self.assertEqual(self.taken_by_threads(lambda queue: queue.read_many(len(payloads))), payloads)

    def taken_by_threads(self, take: Callable[[MessageQueue], list[bytes]], threads: int = 8) -> list[bytes]:
        def take_and_close() -> list[bytes]:
            try:
                return take(self.queue)
            finally:
                connections.close_all()

        with ThreadPoolExecutor(threads) as pool:
            takers = [pool.submit(take_and_close) for _ in range(threads)]
        return sorted(payload for taker in takers for payload in taker.result())

    def test_messages_that_stay_are_listed_while_others_are_taken_and_written(self) -> None:
        self.need("browsable")
        payloads = self.fill(60)
        done = Event()

        def take_from_the_head() -> None:
            with self.queue.consumer(LONG) as consumer:
                for _ in range(20):
                    consumer.exchange(acks(consumer.exchange(wanted=1).reservations))

        def write_at_the_tail() -> None:
            for _ in range(200):
                if not done.is_set():
                    self.queue.write(b"late")

        def run_and_close(work: Callable[[], None]) -> None:
            try:
                work()
            finally:
                connections.close_all()

        with ThreadPoolExecutor(2) as pool:
            others = [pool.submit(run_and_close, work) for work in (take_from_the_head, write_at_the_tail)]
            listed = payloads_of(self.pages("due"))
            done.set()
        for other in others:
            other.result()
        self.assertLessEqual(set(payloads[20:]), set(listed))

    # processes

    @tag("slow")
    def test_processes_that_reserve_get_each_message_once(self) -> None:
        if self.one_process_only:
            self.skipTest(self.one_process_only)
        self.check_processes()

    def check_processes(self, journal_mode: str = "") -> None:
        payloads = self.fill(200)
        self.assertEqual(self.taken_by_processes(journal_mode), payloads)
        self.check_counts()

    def taken_by_processes(self, journal_mode: str, processes: int = 4) -> list[bytes]:
        takers = [spawn(self.queue.name, journal_mode) for _ in range(processes)]
        self.addCleanup(lambda: [taker.kill() for taker in takers if taker.poll() is None])
        for taker in takers:
            taker.stdout.readline()
        for taker in takers:
            taker.stdin.write("go\n")
            taker.stdin.flush()
        taken = []
        for taker in takers:
            output, errors = taker.communicate(timeout=60)
            self.assertEqual((taker.returncode, errors), (0, ""))
            taken += [bytes.fromhex(line) for line in output.split()]
        return sorted(taken)
