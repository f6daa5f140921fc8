"""Connections: how many messages one serves, when it is made anew, how many there are, who works on them."""

from __future__ import annotations

import smtplib
import time
from collections.abc import Callable
from datetime import datetime
from threading import Lock, Thread, current_thread
from typing import Any
from unittest import mock

from django.conf import settings
from django.core.mail import EmailMessage
from django.db import connection, connections
from django.db.backends.signals import connection_created
from django.test import TestCase, TransactionTestCase, override_settings

from mailqueue_backend.delivery import drain as drain_module
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests import smtp
from tests.cases import message
from tests.services import needs
from tests.smtp import ScriptedServer, Session, always, in_turn
from tests.smtp.cases import DELIVERY, ScriptedTestCase


def slowly(session: Session) -> str:
    """Take a message in a hundredth of a second, so that other workers have a share."""
    time.sleep(0.01)
    session.store()
    return smtp.say("250 stored")(session)


class Unencodable(EmailMessage):
    """Passes send(), and fails when it is rendered."""

    def message(self, **kwargs: Any) -> Any:
        raise UnicodeError("surrogates not allowed")


class ReuseTests(ScriptedTestCase):
    def test_connection_serves_a_hundred_messages(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(201)))
        backend = self.backend()
        backend.options.workers = 1
        self.assertEqual(self.drain(backend).sent, 201)
        self.assertEqual((self.smtp.connections, self.smtp.said("QUIT")), (3, 3))

    def test_of_a_site_s_own_class_too(self) -> None:
        class Backend(QueuedEmailBackend):
            connection_class = type("SiteSMTP", (smtplib.SMTP,), {})

        self.serve()
        self.enqueue(*map(str, range(101)))
        backend = self.backend(Backend)
        backend.options.workers = 1
        self.assertEqual(self.drain(backend).sent, 101)
        self.assertEqual((self.smtp.connections, self.smtp.said("QUIT")), (2, 2))

    def test_server_that_hangs_up_after_each_message(self) -> None:
        def take_and_leave(session: Session) -> str:
            session.store()
            session.send(b"250 stored\r\n")
            raise smtp.Over

        for extensions in ([], ["PIPELINING"]):
            with self.subTest(extensions=extensions):
                self.serve(always("dot", take_and_leave), extensions=extensions)
                self.enqueue("a", "b", "c")
                self.assertEqual(self.drain().sent, 3)
                self.assertEqual(self.smtp.connections, 3)

    def test_goodbye_in_the_same_breath_as_the_answer(self) -> None:
        def take_and_leave(session: Session) -> str:
            session.store()
            session.send(b"250 stored\r\n421 closing\r\n")
            raise smtp.Over

        self.serve(in_turn(dot=[take_and_leave]))
        self.enqueue("a", "b")
        self.assertEqual(self.drain().sent, 2)
        self.assertEqual((self.smtp.connections, self.smtp.copies), (2, {"a": 1, "b": 1}))

    def test_connection_that_has_carried_enough_for_the_server(self) -> None:
        for reply in ("421 enough", "452 enough"):
            for extensions in ([], ["PIPELINING"]):
                with self.subTest(reply=reply, extensions=extensions):
                    self.serve(in_turn(MAIL=[None, None, reply]), extensions=extensions)
                    self.enqueue("a", "b", "c")
                    self.assertEqual(self.drain().sent, 3)
                    self.assertEqual(self.smtp.connections, 2)

    def test_hang_up_before_mail_is_no_failure_of_the_message(self) -> None:
        self.serve(in_turn(MAIL=[None, smtp.fin]))
        self.enqueue("a", "b")
        self.assertEqual(self.drain().sent, 2)
        self.assertEqual(self.smtp.connections, 2)

    def test_new_connection_that_takes_nothing_is_a_failure(self) -> None:
        self.serve(always("MAIL", "452 disk full"))
        self.enqueue("a", "b", "c")
        self.assertEqual(self.failing_drain().requeued, 3)
        self.assertEqual(self.smtp.connections, 1)

    def test_it_is_made_anew_once_and_not_for_ever(self) -> None:
        self.serve(in_turn(MAIL=[None, *["452 enough"] * 9]))
        self.enqueue("a", "b", "c")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued), (1, 2))
        self.assertEqual((self.smtp.connections, self.smtp.said("MAIL")), (2, 4))

    def test_message_that_is_refused_for_good_does_not_cost_the_connection(self) -> None:
        self.serve(in_turn(MAIL=[None, "552 5.3.4 too big", "552 5.3.4 too big"]))
        self.enqueue("a", "b", "c", "d")
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued), (2, 2))
        self.assertEqual(self.smtp.connections, 1)

    def test_refusal_at_data_leaves_no_transaction_behind(self) -> None:
        # The server says 503 to a MAIL in mid-transaction; smtplib would say it.
        for extensions in ([], ["PIPELINING"]):
            with self.subTest(extensions=extensions):
                again = bool(extensions)
                self.serve(in_turn(DATA=["451 later"] * (1 + again)), extensions=extensions)
                self.enqueue("a", "b")
                report = self.failing_drain()
                self.assertEqual((report.sent, report.requeued), (1, 1))
                self.assertEqual(self.smtp.connections, 1 + again)
                self.assertEqual(self.drain().sent, 1)

    def test_reset_that_fails_leaves_no_transaction_behind(self) -> None:
        self.serve(in_turn(RCPT=["550 5.1.1 no"], RSET=["500 what?"]))
        self.enqueue("a", "b")
        with override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
            report = self.failing_drain()
        self.assertEqual((report.sent, report.discarded), (1, 1))
        self.assertEqual(self.smtp.connections, 2)

    def test_message_that_cannot_be_rendered_does_not_cost_the_connection(self) -> None:
        self.serve()
        broken = message("b")
        broken.attachments = [("a.bin", b"", "no MIME type")]
        self.backend().send_messages([message("a"), broken, message("c")])
        self.assertEqual(self.failing_drain().sent, 2)
        self.assertEqual(self.smtp.connections, 1)

    def test_refusals_of_one_message_are_not_those_of_the_next(self) -> None:
        self.serve(in_turn(RCPT=["550 5.1.1 no"]))
        self.backend().send_messages([message("a"), Unencodable("b", to=["to@example.com"])])
        with override_settings(MAIL_QUEUE_RETRY_REJECTED=False):
            report = self.failing_drain()
        self.assertEqual((report.discarded, report.requeued), (2, 0))
        self.assertIn("Message Unsendable", self.discards()[1])


class WorkerTests(ScriptedTestCase):
    def workers(self, messages: int, *, backend: QueuedEmailBackend | None = None, **settings: Any) -> int:
        """Drain so many messages, all of them with success, and tell how many connections that took."""
        self.serve(always("dot", slowly))
        backend = backend or self.backend()
        backend.port = self.smtp.port
        self.enqueue(*map(str, range(messages)))
        with override_settings(**settings):
            self.assertEqual(self.drain(backend).sent, min(messages, backend.options.limit or messages))
        self.assertEqual(set(self.smtp.copies.values()), {1})
        return self.smtp.connections

    def test_as_many_as_the_backlog_is_worth(self) -> None:
        for messages, workers in ((1, 1), (20, 1), (21, 2), (60, 3)):
            with self.subTest(messages=messages):
                self.assertEqual(self.workers(messages), workers)

    def test_not_more_than_the_setting_says(self) -> None:
        self.assertEqual(self.workers(100, MAIL_QUEUE_WORKERS=2), 2)
        self.assertEqual(self.workers(30, MAIL_QUEUE_WORKERS=1), 1)

    def test_not_more_than_the_command_is_told(self) -> None:
        self.serve()
        backend = self.backend()
        backend.options.workers = 2
        self.assertEqual(self.workers(100, backend=backend), 2)

    def test_not_more_than_the_limit_is_worth(self) -> None:
        self.serve()
        backend = self.backend()
        backend.options.limit = 20
        self.assertEqual(self.workers(100, backend=backend), 1)

    def test_they_start_when_the_first_is_connected(self) -> None:
        at_first: list[int] = []

        def late(session: Session) -> str:
            time.sleep(0.3)
            at_first.append(self.smtp.connections)
            return smtp.say("220 ready")(session)

        self.serve(in_turn(banner=[late], dot=[slowly] * 60))
        self.enqueue(*map(str, range(60)))
        self.drain()
        self.assertEqual((at_first, self.smtp.connections), ([1], 3))

    def test_those_that_are_refused_leave_quietly(self) -> None:
        for refusal in ("421 too many", "554 too many", smtp.fin):
            with self.subTest(refusal=refusal):
                self.serve(in_turn(banner=[None, refusal, refusal], dot=[slowly] * 60))
                self.enqueue(*map(str, range(60)))
                with self.assertNoLogs(DELIVERY, "WARNING"):
                    report = self.drain()
                self.assertEqual((report.sent, report.requeued, self.smtp.connections), (60, 0, 3))

    def test_message_of_one_that_is_refused_is_as_it_was(self) -> None:
        late = _after(0.5, "421 too many")
        self.serve(in_turn(banner=[None, late]))
        self.enqueue(*map(str, range(21)), created=datetime(2020, 1, 1))
        report = self.drain()
        # The first takes what the second has given back.
        self.assertEqual((report.sent, report.discarded, len(self.queue)), (21, 0, 0))
        self.assertEqual(self.discards(), [])

    def test_first_that_gets_no_second_connection_leaves_the_work_to_the_others(self) -> None:
        self.serve(in_turn(banner=[None, None, "421 too many"], dot=[_part, *[slowly] * 60]))
        self.enqueue(*map(str, range(40)), created=datetime(2020, 1, 1))
        report = self.drain()
        self.assertEqual((report.sent, report.discarded, len(self.queue)), (40, 0, 0))
        self.assertEqual((self.smtp.connections, set(self.smtp.copies.values())), (3, {1}))

    def test_thread_that_cannot_be_started_is_done_without(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(40)))
        with mock.patch.object(drain_module, "Thread", _Unstartable):
            self.assertEqual(self.failing_drain().sent, 40)
        self.assertIn("goes on with 1 worker: can't start new thread", self.lines[0])

    def test_failing_queue_is_raised_from_any_thread(self) -> None:
        self.serve(always("dot", slowly))
        self.enqueue(*map(str, range(40)))
        with (
            mock.patch.object(drain_module.Worker, "run", _not_in_the_second_thread(drain_module.Worker.run)),
            self.assertRaisesMessage(ValueError, "in a thread"),
        ):
            self.failing_drain()
        self.assertEqual(len(self.smtp.stored), 40)

    def test_worker_that_is_ended_by_no_exception_of_a_message_hangs_nothing(self) -> None:
        class Site(QueuedEmailBackend):
            parallel = True

            def _send_queued_messages(self, email_message: Any, *args: Any) -> Any:
                if email_message.subject == "5":
                    raise SystemExit
                return super()._send_queued_messages(email_message, *args)

        self.serve(always("dot", slowly))
        self.enqueue(*map(str, range(60)))
        with self.assertRaisesMessage(RuntimeError, "A worker was ended"):
            self.drain(self.backend(Site))
        self.assertEqual((len(self.smtp.stored), len(self.queue)), (59, 1))


class _Unstartable(Thread):
    def start(self) -> None:
        raise RuntimeError("can't start new thread")


def _after(seconds: float, reply: str) -> smtp.Fault:
    def late(session: Session) -> str:
        time.sleep(seconds)
        return smtp.say(reply)(session)

    return late


def _part(session: Session) -> str:
    """Take the message when the second worker is there, and hang up."""
    while session.server.connections < 2:
        time.sleep(0.01)
    time.sleep(0.1)
    session.store()
    session.send(b"250 stored\r\n")
    raise smtp.Over


def _not_in_the_second_thread(run: Callable[..., Any]) -> Callable[..., Any]:
    def guarded(*args: Any) -> Any:
        if current_thread().name == "mailqueue-worker-1":
            raise ValueError("in a thread")
        return run(*args)

    return guarded


class HookTests(ScriptedTestCase):
    def threads(self, **attributes: Any) -> int:
        """Count the threads in which the hook of a site is called."""
        names: set[str] = set()

        class Site(QueuedEmailBackend):
            def _send_queued_messages(self, *args: Any) -> Any:
                names.add(current_thread().name)
                return super()._send_queued_messages(*args)

        for name, value in attributes.items():
            setattr(Site, name, value)
        self.serve(always("dot", slowly))
        self.enqueue(*map(str, range(60)))
        self.assertEqual(self.drain(self.backend(Site)).sent, 60)
        return len(names)

    def test_hook_that_knows_no_threads(self) -> None:
        self.assertEqual(self.threads(), 1)

    def test_hook_that_says_it_does(self) -> None:
        self.assertEqual(self.threads(parallel=True), 3)

    def test_queue_that_knows_no_threads(self) -> None:
        self.queue = open_queue(self.queue.name)  # type: ignore[assignment]
        self.assertEqual(self.threads(parallel=True), 1)


class DatabaseQueueTests(TestCase):
    def test_no_other_thread_sees_an_open_transaction(self) -> None:
        self.assertFalse(open_queue("any").parallel)


class DatabaseQueueThreadsTests(TransactionTestCase):
    databases = {"default", *(settings.DATABASES.keys() & {"postgresql"})}

    def test_threads_can_share_the_work(self) -> None:
        self.assertTrue(open_queue("any").parallel)

    def test_database_in_memory_is_this_thread_s_own(self) -> None:
        with mock.patch.object(connection, "is_in_memory_db", return_value=True):
            self.assertFalse(open_queue("any").parallel)

    def drain_with_threads(self) -> set[str]:
        """Drain the database queue with three workers; give the names of the threads that delivered."""
        names: set[str] = set()
        lock = Lock()

        class Site(QueuedEmailBackend):
            parallel = True

            def _send_queued_messages(self, *args: Any) -> Any:
                with lock:
                    names.add(current_thread().name)
                return super()._send_queued_messages(*args)

        with ScriptedServer(always("dot", slowly)) as smtp:
            backend = Site("127.0.0.1", smtp.port)
            backend.send_messages([message(str(number)) for number in range(60)])
            backend.send_queued_messages()
        self.assertEqual((len(smtp.copies), backend.report.sent, len(backend.que)), (60, 60, 0))
        return names

    def test_three_workers_on_one_database(self) -> None:
        self.assertEqual(len(self.drain_with_threads()), 3)

    def test_three_workers_need_one_connection_to_the_database(self) -> None:
        opened: list[str] = []

        def note(connection: Any, **kwargs: Any) -> None:
            opened.append(connection.alias)

        connection_created.connect(note)
        self.addCleanup(connection_created.disconnect, note)
        for alias in sorted(self.databases):
            connections.close_all()
            opened.clear()
            with self.subTest(alias), override_settings(MAIL_QUEUE_DATABASE=alias):
                self.assertEqual(len(self.drain_with_threads()), 3)
                self.assertEqual(opened, [alias])

    @needs("PostgreSQL", "postgresql" in settings.DATABASES)
    @override_settings(MAIL_QUEUE_DATABASE="postgresql")
    def test_connections_of_the_threads_are_closed(self) -> None:
        self.assertEqual(len(self.drain_with_threads()), 3)
        with connections["postgresql"].cursor() as cursor:
            time.sleep(0.2)  # the server takes its time
            cursor.execute("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()")
            self.assertEqual(cursor.fetchone(), (1,))

    def test_calling_thread_need_not_be_the_main_one(self) -> None:
        def work() -> None:
            try:
                self.drain_with_threads()
            finally:
                connections.close_all()

        thread = Thread(target=work)
        thread.start()
        thread.join(30)
        self.assertEqual(len(open_queue("MAIL_QUEUE")), 0)
