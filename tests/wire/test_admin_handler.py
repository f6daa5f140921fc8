"""Log records that are mailed through the queue: a broken queue, or broken mail, breaks nothing else."""

from __future__ import annotations

import logging
import logging.handlers
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from queue import SimpleQueue
from threading import Thread
from typing import Any
from unittest import mock, skipUnless

import django
from django.core import mail
from django.http import HttpRequest, HttpResponse
from django.test import Client, SimpleTestCase, TestCase, override_settings, tag
from django.urls import path
from django.utils.log import AdminEmailHandler

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.mail.smtp import LOGGER, QueuedEmailBackend
from mailqueue_backend.queues.database.queue import Queue
from tests import services
from tests.cases import BACKEND, MailTestCase, drain, enqueue
from tests.smtp import always, by_recipient


def broken_view(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


def mailing_view(request: HttpRequest) -> HttpResponse:
    mail.EmailMessage("Order", "Body", "shop@example.com", ["to@example.com"]).send()
    return HttpResponse()


urlpatterns = [path("broken", broken_view), path("mailing", mailing_view)]

# Django < 6.0: names go with the addresses.
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
site = override_settings(EMAIL_BACKEND=BACKEND, ADMINS=ADMINS, ROOT_URLCONF=__name__)


class SiteBackend(QueuedEmailBackend):
    """A site's backend, whose hook fails."""

    def _send_queued_messages(self, *args: Any) -> Any:
        raise LookupError("a bug of the site")


class ThreadHandler(AdminEmailHandler):
    """Mails from another thread, as a site may do to save time."""

    def send_mail(self, *args: Any, **kwargs: Any) -> None:
        thread = Thread(target=super().send_mail, args=args, kwargs=kwargs)
        thread.start()
        thread.join()


class ListenerHandler(logging.handlers.QueueHandler):
    """Hands its records to a thread, which mails them."""

    def close(self) -> None:
        listener = logging.handlers.QueueListener(self.queue, AdminEmailHandler())
        listener.start()
        listener.stop()
        super().close()


def handlers_that_mail() -> Iterator[tuple[str, logging.Handler]]:
    yield "at once", AdminEmailHandler()
    yield "in another thread", ThreadHandler()
    yield "handed to another thread", ListenerHandler(SimpleQueue())
    yield "later", logging.handlers.MemoryHandler(100, logging.CRITICAL + 1, AdminEmailHandler())


@contextmanager
def on_the_root_logger(handler: logging.Handler, level: int) -> Iterator[None]:
    """Pass the records of every logger, from this level on, to one handler only."""
    handler.setLevel(level)
    with (
        mock.patch.object(logging.getLogger(), "handlers", [handler]),
        mock.patch.object(logging.getLogger("django"), "handlers", []),
    ):
        yield


@tag("slow")
@services.needs("redis", services._importable("redis"))
@site
class SilentRedisTests(SimpleTestCase):
    """Redis takes connections and never answers."""

    def setUp(self) -> None:
        self.silent = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(self.silent.close)
        host, port = self.silent.getsockname()
        url = f"redis://{host}:{port}"
        settings = override_settings(QUEUE_BACKEND="mailqueue_backend.queues.redis", MAIL_QUEUE_REDIS_URL=url)
        settings.enable()
        self.addCleanup(settings.disable)

    def tries(self) -> int:
        """Count the connections that were made."""
        self.silent.settimeout(0)
        with self.assertRaises(BlockingIOError):
            for number in range(100):  # noqa: B007 - it is the result
                self.silent.accept()[0].close()
        return number

    def assertAnsweredInTime(self, url: str, level: int) -> None:
        with on_the_root_logger(AdminEmailHandler(), level):
            begun = time.monotonic()
            answer = Client(raise_request_exception=False).get(url)
        self.assertEqual(answer.status_code, 500)
        self.assertLess(time.monotonic() - begun, 5)

    def test_error_is_answered_in_time_and_mail_about_it_is_tried_once(self) -> None:
        for level in (logging.WARNING, logging.ERROR):
            with self.subTest(level=logging.getLevelName(level)):
                self.assertAnsweredInTime("/broken", level)
                self.assertEqual(self.tries(), 1)

    def test_view_that_cannot_queue_its_own_mail_is_answered_in_time(self) -> None:
        self.assertAnsweredInTime("/mailing", logging.WARNING)
        self.assertEqual(self.tries(), 2)


@site
class BrokenQueueTests(TestCase):
    """The queue is down."""

    def setUp(self) -> None:
        down = mock.patch.object(Queue, "write_many", side_effect=QueueUnavailable("it is down"))
        self.write_many = down.start()
        self.addCleanup(down.stop)

    def test_silent_mail_stays_silent_when_mailing_about_that_is_not(self) -> None:
        loud = AdminEmailHandler()
        with (
            mock.patch.object(loud, "send_mail", lambda *args, **kwargs: mail.mail_admins(*args, **kwargs)),
            on_the_root_logger(loud, logging.WARNING),
        ):
            self.assertEqual(
                QueuedEmailBackend(fail_silently=True).send_messages([mail.EmailMessage(to=["to@example.com"])]), 0
            )
        self.assertEqual(self.write_many.call_count, 1)

    def test_mail_that_is_not_silent_raises(self) -> None:
        with on_the_root_logger(AdminEmailHandler(), logging.WARNING), self.assertRaises(QueueUnavailable):
            QueuedEmailBackend().send_messages([mail.EmailMessage(to=["to@example.com"])])
        self.assertEqual(self.write_many.call_count, 1)

    @skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
    def test_handler_is_as_silent_as_its_mailer(self) -> None:
        for silent in (True, False):
            options = {"host": "127.0.0.1", "fail_silently": silent}
            mailers = override_settings(MAILERS={"default": {"BACKEND": BACKEND, "OPTIONS": options}})
            with self.subTest(silent=silent), mailers, on_the_root_logger(logging.NullHandler(), logging.ERROR):
                raising = nullcontext() if silent else self.assertRaises(QueueUnavailable)
                with raising:
                    AdminEmailHandler().send_mail("Something is wrong", "Body")


@site
class BrokenMailTests(MailTestCase):
    """The queue works, its mail fails."""

    def test_failures_are_not_mailed_by_what_fails(self) -> None:
        enqueue("a", "b")
        with self.scripted(always("dot", "451 later")), on_the_root_logger(AdminEmailHandler(), logging.WARNING):
            for _ in range(2):
                drain()
        self.assertEqual(len(self.queue), 2)

    def test_failing_hook_is_not_mailed_by_what_fails(self) -> None:
        enqueue("a", "b")
        with on_the_root_logger(AdminEmailHandler(), logging.ERROR):
            for _ in range(2):
                drain(SiteBackend())
        self.assertEqual(len(self.queue), 2)

    def test_discards_are_not_mailed(self) -> None:
        for name, handler in handlers_that_mail():
            with self.subTest(name), self.scripted(always("RCPT", "550 5.1.1 no such user")):
                enqueue("a", "b")
                writing = mock.patch.object(Queue, "write_many", return_value=[True])
                with writing as write_many, on_the_root_logger(handler, logging.WARNING):
                    report = drain(expire=0)
                    handler.close()
                self.assertEqual((report.discarded, len(self.log_lines())), (2, 2))
                self.assertEqual(write_many.call_count, 0)
                self.log.unlink()

    def test_record_that_cannot_be_formatted_affects_no_later_mail(self) -> None:
        with mock.patch("sys.stderr"), suppress(TypeError):
            LOGGER.warning("Given up after %d tries", "three")
        enqueue("a")
        self.assertEqual(len(self.queue), 1)

    def test_mail_of_a_person_that_quotes_a_log_line_is_queued(self) -> None:
        enqueue("a")
        with self.scripted(always("dot", "451 later")), self.assertLogs("mailqueue_backend.delivery") as logs:
            drain()
        quoting = mail.EmailMessage(
            "Ticket 42", f"What is this?\n\n{logs.records[0].getMessage()}", to=["a@example.com"]
        )
        self.assertEqual(QueuedEmailBackend().send_messages([quoting]), 1)

    def test_mail_of_the_site_about_its_own_errors_is_queued(self) -> None:
        with on_the_root_logger(AdminEmailHandler(), logging.ERROR):
            self.assertEqual(Client(raise_request_exception=False).get("/broken").status_code, 500)
        self.assertEqual(len(self.queue), 1)
        drain()
        self.assertIn("Internal Server Error: /broken", self.inbox.subjects[0])

    def test_handler_that_raises_does_not_stop_the_drain(self) -> None:
        enqueue("a", "b")
        with mock.patch.object(AdminEmailHandler, "emit", side_effect=ConnectionRefusedError), mock.patch("sys.stderr"):
            QueuedEmailBackend().send_messages([mail.EmailMessage("c", to=["a@example.com"])])
            enqueue("d")
            refusing = self.scripted(by_recipient({"a@example.com": "451 later"}))
            with refusing as smtp, on_the_root_logger(AdminEmailHandler(), logging.WARNING):
                drain()
        self.assertEqual((smtp.subjects, len(self.queue)), (["a", "b", "d"], 1))
