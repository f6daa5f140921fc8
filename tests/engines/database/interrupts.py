"""Interrupts leave no transaction open."""

from __future__ import annotations

import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from types import FrameType
from unittest import mock

from django.db import OperationalError, transaction
from django.db.backends.base import base as django_base
from django.test import tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import database
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.database.atomic import close_interrupted_transaction
from tests.engines.contract.base import LONG

from .base import OnDatabase


class TransactionInterruptContract(OnDatabase):
    """The promises about interrupted transactions."""

    def test_a_connection_that_cannot_roll_back_is_closed(self) -> None:
        self.queue.write(b"a")
        with mock.patch.object(self.connection, "rollback", side_effect=OperationalError("gone")):
            close_interrupted_transaction(self.alias)
        self.assertIsNone(self.connection.connection)
        self.assertEqual(self.queue.read(), b"a")

    @tag("slow")
    def test_an_interrupt_inside_django_leaves_no_transaction_open(self) -> None:
        line = 0
        interrupted = True
        while interrupted:
            line += 1
            self.empty()
            self.queue.write_many(b"a", b"b", b"c", b"d", b"e")
            consumer = self.queue.consumer(LONG)
            a, b = consumer.exchange(wanted=2).reservations
            settlements = [Settlement(a, "ack"), Settlement(b, "release")]
            exchange = partial(consumer.exchange, settlements, 2)
            interrupted = self.interrupt(line, exchange, transaction.__file__, django_base.__file__)
            consumer.close()
            self.assertEqual((self.connection.in_atomic_block, self.connection.get_autocommit()), (False, True), line)
            with ThreadPoolExecutor(1) as pool:
                left = sorted(pool.submit(self.committed_payloads).result())
            self.assertIn(left, ([b"a", b"b", b"c", b"d", b"e"], [b"b", b"c", b"d", b"e"]), line)
            self.check_counts(waiting=len(left))
        self.assertGreater(line, 100)

    def interrupt(self, line: int, act: Callable[[], object], *more_files: str) -> bool:
        """Raise KeyboardInterrupt at the n-th line executed in the queue or ``more_files``; return whether it came."""
        files = (database.__path__[0], *more_files)

        def trace(frame: FrameType, event: str, argument: object):
            nonlocal line
            # Django holds a lock there. A trace function can interrupt it; a signal handler would not.
            if not frame.f_code.co_filename.startswith(files) or frame.f_code.co_name == "allow_thread_sharing":
                return None
            line -= event == "line"
            if line == 0 and event == "line":
                raise KeyboardInterrupt
            return trace

        before = sys.gettrace()
        sys.settrace(trace)
        try:
            act()
        except (KeyboardInterrupt, QueueUnavailable):
            # An interrupt in psycopg's commit becomes an error, because Django cannot switch autocommit back on.
            return True
        finally:
            sys.settrace(before)
        return False

    def committed_payloads(self) -> list[bytes]:
        with closing(self.connection):
            return [bytes(row.payload) for row in self.rows.filter(queue=self.queue.name)]

    def test_an_interrupted_exchange_leaves_the_callers_transaction_as_it_was(self) -> None:
        self.queue.write_many(b"a", b"b")
        consumer = self.consumer()
        for line in range(1, 200):
            with transaction.atomic(using=self.alias):
                self.interrupt(line, partial(consumer.exchange, wanted=1))
                self.assertEqual((len(self.connection.savepoint_ids), self.connection.needs_rollback), (0, False), line)
                consumer.close()
            self.check_counts(waiting=2)
