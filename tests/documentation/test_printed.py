"""The lines that the documentation quotes: each is brought about here, and must be printed as it is quoted.

Names, numbers and times may differ; ``normalised()`` removes them.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from io import StringIO
from types import ModuleType
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage
from django.core.management import CommandError, call_command
from django.db import OperationalError
from django.db.backends.utils import CursorWrapper
from django.test import override_settings

from mailqueue_backend.delivery import in_flight
from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.delivery.mailer import Mailer
from mailqueue_backend.delivery.policy import DELIVERED
from mailqueue_backend.delivery.settling import Delivery, warn_of_lost_lease
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.envelope import dumps, loads
from mailqueue_backend.inspection import alarm
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import Reservation, Settlement
from mailqueue_backend.queues.database import transactions
from mailqueue_backend.queues.database.models import QueuedMessage
from tests import smtp
from tests.cases import QueueTestCase, message
from tests.certificates import needs_openssl, server_context
from tests.smtp import Script, ScriptedServer, always, by_recipient, in_turn

from .pages import fences

READER = "reader@example.org"
_VARIABLE = {
    r"(age|seconds)=[\d.]+": r"\1=N",
    r"(127\.0\.0\.1|smtp\.example\.org|bulk\.example\.org):\d+": "SERVER",
    r"\b[0-9a-f]{12}\b": "ID",
    r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d([.,]\d+)?": "TIME",
    r"Message-ID: <\S+>": "Message-ID",
    r"\d+ (message|recipient|second|minute|hour|day|byte)s?": r"N \1",
    r"N message waits?, .*": "N message wait.",
    r"lease of \d+ s": "lease of N s",
    r"of \d+ could not": "of N could not",
    r"message_id=<\S+>": "message_id=ID",
    r'("\w+": )[\d.]+': r"\1N",
}


def normalised(line: str) -> str:
    """Return a line with placeholders for what differs from site to site."""
    for pattern, placeholder in _VARIABLE.items():
        line = re.sub(pattern, placeholder, line)
    return line


def quoted() -> Iterator[tuple[str, str]]:
    """Yield each line of output that the documentation shows, and where."""
    for fence in fences("text", "console"):
        for line in fence.text.splitlines():
            if not line.startswith("$ "):
                yield str(fence), line


def with_error(payload: bytes, error: str) -> bytes:
    """Return the payload of a message after a failed attempt."""
    envelope = loads(payload)
    envelope.meta.note_failure(error)
    envelope.meta.write(envelope.extra)
    return dumps(envelope)


class PrintedTests(QueueTestCase):
    """``bring_about_…()`` makes the command print, or the package log, the lines of one section."""

    def setUp(self) -> None:
        super().setUp()
        self.printed = StringIO()
        handler = logging.StreamHandler(self.printed)
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger = logging.getLogger("mailqueue_backend")
        logger.addHandler(handler)
        self.addCleanup(logger.removeHandler, handler)

    @needs_openssl
    def test_every_quoted_line_is_printed(self) -> None:
        for name in dir(self):
            if name.startswith("bring_about_"):
                getattr(self, name)()
                QueuedMessage.objects.all().delete()
        printed = {normalised(line) for line in [*self.printed.getvalue().splitlines(), *self.log_lines()]}
        for place, line in quoted():
            with self.subTest(place):
                self.assertTrue(normalised(line) in printed, f"{normalised(line)!r} was not printed")

    def send(self, *more: str, **kwargs: Any) -> None:
        """Queue a message."""
        mail = message("Your order", [READER, *more])
        mail.from_email = "shop@example.org"
        QueuedEmailBackend().send_messages([mail], **kwargs)

    def run_command(self, *arguments: str, **settings: Any) -> None:
        """Drain with these settings."""
        with override_settings(**{"EMAIL_TIMEOUT": 30, **settings}):
            try:
                call_command("process_mail_queue", *arguments, stdout=self.printed, stderr=self.printed)
            except CommandError as error:
                self.printed.write(f"CommandError: {error}\n")  # as manage.py prints it

    def meet(self, script: Script = smtp.good, server: dict[str, Any] | None = None, **settings: Any) -> None:
        """Drain to a server that follows a script. If nothing is queued, queue a message. Then empty the queue."""
        if not QueuedMessage.objects.exists():
            self.send()
        with ScriptedServer(script, **(server or {})) as running:
            self.run_command(**{"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": running.port, **settings})
        QueuedMessage.objects.all().delete()

    def bring_about_success(self) -> None:
        self.meet()

    def bring_about_lines_at_level_info(self) -> None:
        logger = logging.getLogger("mailqueue_backend.delivery")
        logger.setLevel(logging.INFO)
        try:
            self.meet(always("dot", "250 2.0.0 Ok: queued as 4Xy"))
        finally:
            logger.setLevel(logging.NOTSET)

    def bring_about_figures_for_programs(self) -> None:
        self.send()
        with ScriptedServer() as running:
            self.run_command("--json", EMAIL_HOST="127.0.0.1", EMAIL_PORT=running.port)

    def bring_about_dry_runs(self) -> None:
        self.send()
        self.run_command("--dry-run")
        shop = ModuleType("shop.mail")
        shop.OrderMessage = type("OrderMessage", (EmailMessage,), {"__module__": "shop.mail"})  # type: ignore[attr-defined]
        with mock.patch.dict("sys.modules", {"shop": ModuleType("shop"), "shop.mail": shop}):
            QueuedEmailBackend().send_messages([shop.OrderMessage("Your order", "", "shop@example.org", [READER])])
            del shop.OrderMessage
            self.run_command("--dry-run")

    def bring_about_a_server_that_cannot_be_reached(self) -> None:
        with ScriptedServer() as running:
            port = running.port
        self.send()
        self.run_command(EMAIL_HOST="127.0.0.1", EMAIL_PORT=port)
        self.send()
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with mock.patch("socket.getaddrinfo", side_effect=unknown):
            self.run_command(EMAIL_HOST="smtp.example.org", EMAIL_PORT=587)
        self.meet(always("banner", smtp.hang), EMAIL_TIMEOUT=0.1)
        self.meet(always("banner", smtp.garbage))

    def bring_about_failures_of_tls(self) -> None:
        self.meet(server={"context": server_context(), "extensions": ["STARTTLS"]}, EMAIL_USE_TLS=True)
        self.meet(EMAIL_USE_SSL=True)
        self.meet(EMAIL_USE_TLS=True)

    def bring_about_refused_logins(self) -> None:
        login = {"EMAIL_HOST_USER": "shop", "EMAIL_HOST_PASSWORD": "wrong"}
        refusing = always("AUTH", "535 5.7.8 Error: authentication failed")
        self.meet(refusing, {"extensions": ["AUTH PLAIN"]}, **login)
        self.meet(**login)
        self.meet(always("MAIL", "530 5.7.0 Authentication required"))

    def bring_about_a_limit(self) -> None:
        for _ in range(4):
            self.send()
        self.meet(always("MAIL", "450 4.7.1 Error: too much mail from 192.0.2.1"))

    def bring_about_a_mailer_that_is_down(self) -> None:
        backend = QueuedEmailBackend("bulk.example.org", 25)
        backend.alias = "newsletter"
        mailer = Mailer(backend, Troubles(), is_only=False)
        mailer.blocked = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
        mailer.end(True, "12 messages wait, the first since 3 minutes.")

    def bring_about_refusals(self) -> None:
        for step, reply in (
            ("RCPT", f"550 5.1.1 <{READER}>: Recipient address rejected: User unknown"),
            ("MAIL", "552 5.3.4 Message size exceeds fixed limit"),
            ("dot", "550 5.7.1 Message rejected as spam"),
        ):
            self.meet(always(step, reply))
        self.meet(always("RCPT", "451 4.7.1 Greylisted, try again later"), MAIL_QUEUE_RETRY_DELAY=60)
        self.send("other@example.org")
        self.meet(by_recipient({READER: "550 5.1.1 User unknown"}))

    def bring_about_broken_connections(self) -> None:
        self.meet(always("DATA", smtp.fin))
        self.meet(always("dot", smtp.fin))
        self.meet(always("DATA", smtp.hang), MAIL_QUEUE_LEASE=1)

    def bring_about_a_mailer_that_is_gone(self) -> None:
        backend = QueuedEmailBackend()
        backend.alias = "newsletter"
        backend.send_messages([message("Your order", [READER])])
        self.meet()

    def bring_about_a_failing_hook(self) -> None:
        with mock.patch.object(QueuedEmailBackend, "_send_queued_messages", side_effect=KeyError("a bug")):
            self.meet()

    def bring_about_discards(self) -> None:
        self.send(created=datetime.now() - timedelta(days=2))
        self.run_command(EMAIL_HOST="127.0.0.1", EMAIL_PORT=9)
        self.send(created=datetime.now() - timedelta(days=2))
        with mock.patch("sys.stderr"):  # logging reports the error there, too
            self.run_command(EMAIL_HOST="127.0.0.1", EMAIL_PORT=9, MAIL_QUEUE_LOG_FILENAME=os.devnull + "/log")

    def bring_about_payloads_that_are_set_aside(self) -> None:
        self.meet(SECRET_KEY="another key")

    def bring_about_a_lease_that_ended(self) -> None:
        warn_of_lost_lease(Delivery(Reservation(b"", 1, 1), 0, disposition=DELIVERED, id="dafda2aeb3f5"), 600)

    def bring_about_a_locked_database(self) -> None:
        locked = mock.patch.object(CursorWrapper, "execute", side_effect=OperationalError("database is locked"))
        # A command is in no transaction, as this test is.
        outside = mock.patch.object(transactions, "_began_without_lock", return_value=False)
        with mock.patch.object(in_flight, "PAUSES", (0,)), locked, outside:
            self.run_command()

    def bring_about_a_pruned_history(self) -> None:
        call_command("mail_queue", "prune", stdout=self.printed)

    def bring_about_a_clock_that_was_ahead(self) -> None:
        self.send()
        with self.queue.consumer(60) as consumer:
            (reservation,) = consumer.exchange(wanted=1).reservations
            consumer.exchange([Settlement(reservation, "release", delay=23.5 * 3600)])
        self.run_command()

    def bring_about_a_look_at_the_queue(self) -> None:
        now = time.time()
        for _ in range(18):
            self.send(created=datetime.fromtimestamp(now - 4012))
        with self.queue.consumer(60) as consumer:
            (dead, *deferred) = consumer.exchange(wanted=4).reservations
            later = [
                Settlement(each, "release", with_error(each.payload, "450 4.2.1 mailbox busy"), 60) for each in deferred
            ]
            consumer.exchange([Settlement(dead, "bury"), *later], wanted=2)
            with mock.patch.object(alarm, "time", mock.Mock(time=lambda: now)):
                for action in ("status", "check"):
                    with suppress(SystemExit):  # the exit status of check
                        call_command("mail_queue", action, stdout=self.printed, stderr=StringIO())

    def bring_about_a_site_without_a_queue(self) -> None:
        self.run_command(EMAIL_BACKEND="django.core.mail.backends.console.EmailBackend")

    def bring_about_a_loop(self) -> None:
        with mock.patch.object(StopRequest, "wait", side_effect=[False, True]):
            self.send()
            with ScriptedServer(in_turn(banner=["421 4.3.2 closed"])) as running:
                self.run_command("--loop", EMAIL_HOST="127.0.0.1", EMAIL_PORT=running.port)
