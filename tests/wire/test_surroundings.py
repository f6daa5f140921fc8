"""What surrounds send() and a drain: transactions of views, event loops, and the runs of a loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any
from unittest import mock

import django
from django.core.mail import send_mail
from django.core.management import CommandError
from django.db import connection, transaction
from django.http import HttpRequest, HttpResponse
from django.test import AsyncClient, Client, TransactionTestCase, override_settings
from django.urls import path
from django.utils.log import AdminEmailHandler

from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.errors import ConfigurationError
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import BACKEND, MailTestCase, enqueue, message, process_mail_queue
from tests.smtp.inbox import SMTPServerMixin


def drain_view(request: HttpRequest) -> HttpResponse:
    process_mail_queue()
    return HttpResponse()


@transaction.non_atomic_requests(using="default")
def drain_outside_view(request: HttpRequest) -> HttpResponse:
    return drain_view(request)


async def sending_view(request: HttpRequest) -> HttpResponse:
    send_mail("Hello", "Body", "from@example.com", ["to@example.com"])
    return HttpResponse()


async def broken_view(request: HttpRequest) -> HttpResponse:
    raise ZeroDivisionError


urlpatterns = [
    path("drain", drain_view),
    path("drain-outside", drain_outside_view),
    path("send", sending_view),
    path("broken", broken_view),
]
# Django < 6.0: names go with the addresses.
ADMINS = ["admin@example.com"] if django.VERSION >= (6, 0) else [("Admin", "admin@example.com")]
site = override_settings(EMAIL_BACKEND=BACKEND, ROOT_URLCONF=__name__)


@site
class ViewTests(SMTPServerMixin, TransactionTestCase):
    def setUp(self) -> None:
        super().setUp()
        atomic_requests = mock.patch.dict(connection.settings_dict, ATOMIC_REQUESTS=True)
        atomic_requests.start()
        self.addCleanup(atomic_requests.stop)
        enqueue("Hello")

    def test_view_in_a_transaction_cannot_drain(self) -> None:
        with self.assertRaisesMessage(CommandError, "@transaction.non_atomic_requests(using='default')"):
            Client().get("/drain")
        self.assertEqual((self.inbox.connections, open_queue("MAIL_QUEUE").counts().due), (0, 1))

    def test_view_outside_of_a_transaction_can(self) -> None:
        self.assertEqual(Client().get("/drain-outside").status_code, 200)
        self.assertEqual(self.inbox.subjects, ["Hello"])


class TransactionOfATestTests(MailTestCase):
    def test_test_case_can_drain(self) -> None:
        enqueue("Hello")
        process_mail_queue()
        self.assertEqual(self.inbox.subjects, ["Hello"])

    def test_transaction_in_it_cannot_be(self) -> None:
        with self.assertRaises(ConfigurationError), transaction.atomic():
            QueuedEmailBackend().send_queued_messages()


@site
class AsyncViewTests(TransactionTestCase):
    def get(self, url: str) -> int:
        async def get() -> int:
            response = await AsyncClient(raise_request_exception=False).get(url)
            return response.status_code

        return asyncio.run(get())

    def test_view_sends(self) -> None:
        self.assertEqual(self.get("/send"), 200)
        self.assertEqual(open_queue("MAIL_QUEUE").counts().due, 1)

    def test_sending_silently_sends(self) -> None:
        async def send() -> int:
            return QueuedEmailBackend(fail_silently=True).send_messages([message()])

        self.assertEqual(asyncio.run(send()), 1)
        self.assertEqual(open_queue("MAIL_QUEUE").counts().due, 1)

    @override_settings(ADMINS=ADMINS)
    def test_error_of_a_view_is_mailed(self) -> None:
        handler = AdminEmailHandler()
        with mock.patch.object(logging.getLogger("django"), "handlers", [handler]):
            self.assertEqual(self.get("/broken"), 500)
        self.assertEqual(open_queue("MAIL_QUEUE").counts().due, 1)


class LoopTests(SMTPServerMixin, TransactionTestCase):
    def loop(self, while_waiting: Callable[[], object]) -> None:
        """Drain once in a loop, and call this before the next run would begin."""

        def wait(stop: StopRequest, seconds: float) -> bool:
            while_waiting()
            return True

        enqueue("Hello")
        with override_settings(EMAIL_BACKEND=BACKEND), mock.patch.object(StopRequest, "wait", wait):
            process_mail_queue("--loop")
        self.assertEqual(self.inbox.subjects, ["Hello"])

    def test_old_connections_are_closed(self) -> None:
        seen: list[Any] = []
        self.loop(lambda: seen.append(connection.connection))
        self.assertEqual(seen, [None])

    @override_settings(DEBUG=True)
    def test_queries_are_forgotten(self) -> None:
        self.loop(lambda: self.assertEqual(connection.queries, []))
