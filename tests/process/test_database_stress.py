"""A database that disconnects, rolls back or is locked, at each step of a sender or a drain: no message is lost."""

from __future__ import annotations

import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager, suppress
from itertools import count
from typing import Any
from unittest import mock

from django.conf import settings
from django.db import Error, OperationalError, connections, transaction
from django.test import TransactionTestCase, tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Consumer, Settlement
from mailqueue_backend.queues.database.models import Now, QueuedMessage
from tests import services
from tests.cases import enqueue
from tests.kill.children import DRAIN, Site, database, quieten
from tests.smtp.cases import ArrivalsMixin

#: Seconds that SQLite waits for a lock by default.
SQLITE_TIMEOUT = 5


class Sabotage:
    """Call ``act`` once, at the n-th step of a connection. A step is a statement or a commit."""

    def __init__(self, number: int, act: Callable[[], None]) -> None:
        self._left = number
        self._act = act

    @property
    def done(self) -> bool:
        return self._left <= 0

    def step(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._act()

    @contextmanager
    def before_each(self, connection: Any) -> Iterator[None]:
        """Count each step before the database executes it."""

        def execute(execute: Any, *arguments: Any) -> Any:
            self.step()
            return execute(*arguments)

        def commit() -> None:
            self.step()
            original()

        original = connection._commit
        with connection.execute_wrapper(execute), mock.patch.object(connection, "_commit", commit):
            yield

    @contextmanager
    def after_each(self, connection: Any) -> Iterator[None]:
        """Count each step after the database has executed it."""

        def execute(execute: Any, *arguments: Any) -> Any:
            result = execute(*arguments)
            self.step()
            return result

        def commit() -> None:
            original()
            self.step()

        original = connection._commit
        with connection.execute_wrapper(execute), mock.patch.object(connection, "_commit", commit):
            yield


class StressMixin(ArrivalsMixin):
    """A site with a database queue, and a mail server; subclasses set the database."""

    engine: str

    def setUp(self) -> None:
        super().setUp()
        quieten(self)
        self.smtp = self.serve()
        self.alias = database(self.engine)
        self.connection = connections[self.alias]

    def queue_up(self, *subjects: str) -> None:
        """Create a site with these messages in its queue."""
        self.site = Site(self.engine)
        override = self.site.here()
        override.enable()
        self.addCleanup(override.disable)
        enqueue(*subjects)

    def drain(self) -> None:
        QueuedEmailBackend(host="127.0.0.1", port=self.smtp.port).send_queued_messages()

    def check_consumer(self, sabotage: Sabotage) -> None:
        self.consume(sabotage.before_each(self.connection))

    def consume(self, sabotaged: AbstractContextManager[None]) -> None:
        """Check that a consumer that repeats an exchange after each error gets and settles each message once."""
        self.queue_up()
        queue = self.site.queue()
        written = [b"%d" % number for number in range(7)]
        queue.write_many(*written)
        with suppress(QueueUnavailable), sabotaged, queue.consumer(60) as consumer:
            taken = self.take_all(consumer)
        with suppress(QueueUnavailable):
            consumer.close()
        consumer.close()
        self.assertEqual(sorted(taken), sorted([*written, b"6 again"]))
        self.assertEqual(queue.counts(), (0, 0, 0, 0, 1))
        self.assertEqual(self.site.queue("_DEAD").read_many(2), [b"0"])

    def take_all(self, consumer: Consumer) -> list[bytes]:
        """Bury the first message, release the last with new bytes, and acknowledge the others."""
        taken: list[bytes] = []
        settlements: list[Settlement] = []
        empty = 0
        # The answer to a repeated exchange is empty if the first one was not carried out.
        while empty < 2:
            try:
                answer = consumer.exchange(settlements, 2)
            except QueueUnavailable:
                continue
            self.assertTrue(all(answer.settled))
            taken += [reservation.payload for reservation in answer.reservations]
            settlements = [
                Settlement(reservation, {b"0": "bury", b"6": "release"}.get(reservation.payload, "ack"), b"6 again")
                for reservation in answer.reservations
            ]
            empty = 0 if answer.reservations else empty + 1
        return taken

    def let_leases_end(self) -> None:
        QueuedMessage.objects.using(self.alias).exclude(receipt=None).update(due=Now())

    def assertArrived(self, *subjects: str) -> None:
        """Assert that each message has arrived once and that the queue is empty."""
        self.assertEqual(Counter(self.arrived()), Counter(subjects))
        self.arrivals.clear()
        self.assertEqual(self.site.queue().counts(), (0, 0, 0, 0, 0))

    def at_each_step(self, act: Callable[[], None], check: Callable[[Sabotage], None]) -> None:
        """Call ``check`` with a sabotage of the first step, then of the second, and so on until no such step exists."""
        for number in count(1):
            sabotage = Sabotage(number, act)
            with self.subTest(step=number):
                check(sabotage)
            if not sabotage.done:
                break
        self.assertGreater(number, 2)


class StepsContract(StressMixin):
    """The promises about transactions that the database rolls back, or refuses because of SQLite's lock."""

    def lose(self) -> None:
        """Raise the error of a database that has rolled back the transaction."""
        raise OperationalError("database is locked")

    @tag("slow")
    def test_sender_survives_one_rollback(self) -> None:
        self.at_each_step(self.lose, self.check_sender)

    def check_sender(self, sabotage: Sabotage) -> None:
        self.queue_up()
        with sabotage.before_each(self.connection):
            enqueue("a")
            enqueue("b")
        self.assertEqual(self.site.queue().counts().due, 2)

    @tag("slow")
    def test_consumer_survives_one_rollback(self) -> None:
        self.at_each_step(self.lose, self.check_consumer)

    @tag("slow")
    def test_drain_survives_one_rollback(self) -> None:
        self.at_each_step(self.lose, self.check_drain)

    def check_drain(self, sabotage: Sabotage) -> None:
        """Drain twice: a message that was claimed although the answer was lost waits until its lease ends."""
        self.queue_up("a", "b", "c")
        with sabotage.before_each(self.connection):
            self.drain()
        self.let_leases_end()
        self.drain()
        self.assertArrived("a", "b", "c")


class ServerContract(StepsContract):
    """The promises on a database server that closes its clients' connections."""

    own_number: str
    kill: str
    is_alive: str

    def break_off(self) -> None:
        """Make the server close this connection."""
        with self.connection.wrap_database_errors, self.connection.connection.cursor() as cursor:
            cursor.execute(self.own_number)
            (number,) = cursor.fetchone()
        with ThreadPoolExecutor(1) as pool:
            pool.submit(self.kill_elsewhere, number).result()

    def kill_elsewhere(self, number: int) -> None:
        with closing(connections[self.alias]) as connection, connection.cursor() as cursor:
            cursor.execute(self.kill.format(number))
            alive = True
            while alive:
                cursor.execute(self.is_alive.format(number))
                alive = bool(cursor.fetchone()[0])

    def lose_the_answer(self) -> None:
        self.break_off()
        raise OperationalError("server closed the connection unexpectedly")

    @tag("slow")
    def test_sender_gets_an_error_after_a_broken_connection(self) -> None:
        self.at_each_step(self.break_off, self.check_sender_gets_an_error)

    def check_sender_gets_an_error(self, sabotage: Sabotage) -> None:
        self.queue_up()
        accepted = 0
        with sabotage.before_each(self.connection):
            for subject in "ab":
                with suppress(QueueUnavailable):
                    enqueue(subject)
                    accepted += 1
        self.assertEqual(accepted, 1 if sabotage.done else 2)
        self.assertEqual(self.site.queue().counts().due, accepted)

    @tag("slow")
    def test_consumer_goes_on_after_a_broken_connection(self) -> None:
        self.at_each_step(self.break_off, self.check_consumer)

    @tag("slow")
    def test_consumer_gets_the_answer_that_was_lost(self) -> None:
        self.at_each_step(self.lose_the_answer, self.check_consumer_after_answers)

    def check_consumer_after_answers(self, sabotage: Sabotage) -> None:
        self.consume(sabotage.after_each(self.connection))

    @tag("slow")
    def test_drain_goes_on_after_a_broken_connection(self) -> None:
        self.at_each_step(self.break_off, self.check_drain)

    @tag("slow")
    def test_drain_goes_on_after_a_lost_answer(self) -> None:
        self.at_each_step(self.lose_the_answer, self.check_drain_after_answers)

    def check_drain_after_answers(self, sabotage: Sabotage) -> None:
        self.queue_up("a", "b", "c")
        with sabotage.after_each(self.connection):
            self.drain()
        self.let_leases_end()
        self.drain()
        self.assertArrived("a", "b", "c")

    def test_transaction_of_the_sender_fails_as_a_whole(self) -> None:
        self.queue_up()
        with self.assertRaises(QueueUnavailable), transaction.atomic(using=self.alias):
            enqueue("a")
            self.break_off()
            enqueue("b")
        self.assertEqual(self.site.queue().counts().due, 0)

    def test_transaction_of_a_sender_that_ignores_the_error_fails_as_a_whole(self) -> None:
        self.queue_up()
        with self.assertRaises(Error), transaction.atomic(using=self.alias):
            enqueue("a")
            self.break_off()
            with suppress(QueueUnavailable):
                enqueue("b")
        self.connection.close()  # as Django does after a request
        self.assertEqual(self.site.queue().counts().due, 0)


class SQLiteTests(StepsContract, TransactionTestCase):
    engine = "sqlite"

    @tag("slow")
    def test_other_process_that_holds_the_lock(self) -> None:
        self.queue_up("a")
        drain = self.site.spawn(*DRAIN, port=self.smtp.port, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.locked():
            began = time.monotonic()
            with self.assertRaisesMessage(QueueUnavailable, "database is locked"):
                enqueue("b")
            self.assertLess(time.monotonic() - began, SQLITE_TIMEOUT + 1)
            time.sleep(2)
            self.assertIsNone(drain.poll())
        enqueue("c")
        _, errors = drain.communicate(timeout=60)
        self.assertEqual(drain.returncode, 0, errors)
        self.drain()
        self.assertArrived("a", "c")

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the write lock on another connection."""
        path = self.connection.settings_dict["NAME"]
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            yield
            other.execute("ROLLBACK")


class PostgreSQLDeadlock(Exception):
    sqlstate = "40P01"


@services.needs("PostgreSQL", "postgresql" in settings.DATABASES)
class PostgreSQLTests(ServerContract, TransactionTestCase):
    engine = "postgresql"
    databases = {"postgresql"} & set(settings.DATABASES)
    own_number = "SELECT pg_backend_pid()"
    kill = "SELECT pg_terminate_backend({})"
    is_alive = "SELECT COUNT(*) FROM pg_stat_activity WHERE pid = {}"

    def lose(self) -> None:
        raise OperationalError("deadlock detected") from PostgreSQLDeadlock()


@services.needs("MariaDB", "mariadb" in settings.DATABASES)
class MariaDBTests(ServerContract, TransactionTestCase):
    engine = "mariadb"
    databases = {"mariadb"} & set(settings.DATABASES)
    own_number = "SELECT CONNECTION_ID()"
    kill = "KILL {}"
    is_alive = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE ID = {}"

    def lose(self) -> None:
        raise OperationalError(1213, "Deadlock found when trying to get lock; try restarting transaction")
