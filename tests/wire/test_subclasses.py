"""Subclasses as sites write them for Django's SMTP backend: each works in a drain as it does without a queue."""

from __future__ import annotations

import copy
import smtplib
import ssl
import time
from collections import Counter
from contextlib import suppress
from functools import partial
from itertools import product
from threading import Lock
from typing import Any

from django.core import mail
from django.core.mail.backends.smtp import EmailBackend
from django.test import TestCase, override_settings

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests import smtp
from tests.cases import message
from tests.certificates import client_context, needs_openssl, server_context
from tests.smtp import Script, Session, always, by_recipient, in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase

NAMES = ("one@example.com", "two@example.com", "three@example.com", "four@example.com")
#: Messages that are worth three workers.
ENOUGH = 41
#: How a drain may send: (SMTP extensions of the server, workers, messages that are worth so many).
WAYS = [(extensions, *backlog) for extensions, backlog in product(([], PIPELINING), ((1, 3), (3, ENOUGH)))]


def slowly(session: Session) -> str:
    """Store a message after a hundredth of a second, so that each worker gets a share."""
    time.sleep(0.01)
    session.store()
    return smtp.say("250 stored")(session)


class SubclassTestCase(ScriptedTestCase):
    def django_backend(self, kind: Any = EmailBackend, **kwargs: Any) -> Any:
        """Return a backend without a queue; Django >= 6.1 wants to know that it is made on purpose."""
        if hasattr(mail, "mailers"):
            kwargs["alias"] = None
        return kind("127.0.0.1", self.smtp.port, timeout=10, **kwargs)

    def drain_with(self, kind: Any, workers: int = 1, **kwargs: Any) -> Any:
        backend = self.backend(kind, **kwargs)
        backend.options.workers = workers
        return self.drain(backend)

    def drain_until_empty(self, kind: Any) -> None:
        """Drain again from a server that refuses nothing any more."""
        self.smtp.script = lambda step, argument: None
        for _ in range(5):
            if len(self.queue):
                self.drain_with(kind)
        self.assertEqual(len(self.queue), 0)


class OAuthMixin:
    """Logs in as providers with OAuth 2 want it."""

    def open(self: Any) -> Any:
        is_new = super().open()  # type: ignore[misc]
        if is_new:
            code, reply = self.connection.docmd("AUTH", "XOAUTH2 dG9rZW4=")
            if code != 235:
                raise smtplib.SMTPAuthenticationError(code, reply)
        return is_new


class OAuthBackend(OAuthMixin, QueuedEmailBackend):
    pass


class DjangoOAuthBackend(OAuthMixin, EmailBackend):
    pass


class TokenExpired(Exception):
    pass


class ExpiredTokenBackend(QueuedEmailBackend):
    def open(self) -> Any:
        if super().open():
            raise TokenExpired("the token has expired")
        return False


class LoginTests(SubclassTestCase):
    def test_once_for_each_connection_and_before_its_first_message(self) -> None:
        for extensions, workers, messages in WAYS:
            with self.subTest(extensions=extensions, workers=workers):
                self.serve(always("dot", slowly), extensions=extensions)
                self.enqueue(*map(str, range(messages)))
                self.assertEqual(self.drain_with(OAuthBackend, workers).sent, messages)
                self.assertEqual(self.smtp.connections, workers)
                for said in self.smtp.commands:
                    self.assertEqual(said.count("auth"), 1)
                    self.assertLess(said.index("auth"), said.index("mail"))

    def test_again_when_the_connection_is_replaced(self) -> None:
        self.serve(in_turn(MAIL=[None, "421 enough"]))
        self.enqueue("a", "b", "c")
        self.assertEqual(self.drain_with(OAuthBackend).sent, 3)
        self.assertEqual([said.count("auth") for said in self.smtp.commands], [1, 1])

    def test_server_sees_what_it_sees_without_a_queue(self) -> None:
        self.serve()
        self.django_backend(DjangoOAuthBackend).send_messages([message("a"), message("b")])
        self.enqueue("a", "b")
        self.drain_with(OAuthBackend)
        self.assertEqual(self.smtp.commands[0], self.smtp.commands[1])

    def test_method_of_smtplib_s_own(self) -> None:
        class Backend(QueuedEmailBackend):
            def open(self) -> Any:
                is_new = super().open()
                if is_new:
                    self.connection.ehlo()
                    self.connection.auth("XOAUTH2", lambda challenge=None: "token")
                return is_new

        self.serve()
        self.enqueue("a", "b")
        self.assertEqual(self.drain_with(Backend).sent, 2)
        self.assertEqual(self.smtp.said("AUTH"), 1)

    def test_process_that_only_enqueues_makes_no_connection(self) -> None:
        self.serve()
        with self.backend(OAuthBackend) as connection:
            connection.send_messages([message("a")])
        backend = self.backend(OAuthBackend)
        self.assertIsNone(backend.open())
        backend.close()
        self.assertEqual((self.smtp.connections, len(self.queue)), (0, 1))


@override_settings(MAIL_QUEUE_RETRY_REJECTED=False, QUEUE_BACKEND=None)
class FailedLoginTests(SubclassTestCase, TestCase):
    """On the database queue, which keeps the place of a message that was not tried."""

    def setUp(self) -> None:
        super().setUp()
        with override_settings(QUEUE_BACKEND=None):
            self.queue = open_queue("FAILED_LOGIN")  # type: ignore[assignment]

    def check(self, kind: Any) -> None:
        self.enqueue("a", "b", "c")
        report = self.failing_drain(self.backend(kind))
        self.assertEqual((report.sent, report.requeued, report.discarded), (0, 0, 0))
        self.assertEqual((self.smtp.connections, self.smtp.said("MAIL"), len(self.lines)), (1, 0, 1))
        self.assertEqual([left.get("attempts", 0) for left in self.left()], [0, 0, 0])
        self.smtp.script = lambda step, argument: None
        self.assertEqual(self.drain_with(OAuthBackend).sent, 3)
        self.assertEqual([stored.subject for stored in self.smtp.stored], ["a", "b", "c"])

    def test_rejected_is_asked_once_and_no_message_is_tried(self) -> None:
        for reply in ("535 wrong token", "454 later", "550 no"):
            with self.subTest(reply=reply):
                self.serve(always("AUTH", reply))
                self.check(OAuthBackend)

    def test_any_exception_is_a_connection_that_cannot_be_made(self) -> None:
        self.serve()
        self.check(ExpiredTokenBackend)

    def test_half_open_connection_is_dropped(self) -> None:
        self.serve()
        self.enqueue("a")
        backend = self.backend(ExpiredTokenBackend)
        self.failing_drain(backend)
        self.assertIsNone(backend.connection)
        self.assertNotIn("quit", self.smtp.commands[0])
        self.smtp.__exit__()  # would wait for ever for a connection that somebody holds
        self.assertEqual(self.smtp.commands, [[]])


class FailedLoginOfOneWorkerTests(SubclassTestCase):
    def test_others_deliver_its_messages(self) -> None:
        self.serve(in_turn(AUTH=[None, "535 too many", "535 too many"], dot=[slowly] * ENOUGH))
        self.enqueue(*map(str, range(ENOUGH)))
        with self.assertNoLogs("mailqueue_backend.delivery", "WARNING"):
            report = self.drain_with(OAuthBackend, 3)
        self.assertEqual((report.sent, report.requeued, self.smtp.connections), (ENOUGH, 0, 3))
        self.assertEqual(set(self.smtp.copies.values()), {1})


class SigningBackend(QueuedEmailBackend):
    """Marks the message itself, as django-dkim and its like do."""

    def _send(self, email_message: Any) -> Any:
        email_message.body += "\n-- \nSent by us"
        email_message.extra_headers["X-Signatures"] = email_message.extra_headers.get("X-Signatures", "") + "signed"
        return super()._send(email_message)


class SilentBackend(QueuedEmailBackend):
    """Forgets to return what it was told."""

    def _send(self, email_message: Any) -> Any:
        super()._send(email_message)


class StumblingBackend(QueuedEmailBackend):
    def _send(self, email_message: Any) -> Any:
        super()._send(email_message)
        raise ValueError("writing our own log failed")


class SendTests(SubclassTestCase):
    def test_signature_is_there_once_after_two_failures(self) -> None:
        for extensions, step in product(([], PIPELINING), ("RCPT", "dot")):
            with self.subTest(extensions=extensions, step=step):
                # Each drain tries once more without pipelining.
                refusals = 4 if extensions else 2
                self.serve(in_turn(**{step: ["450 later"] * refusals}), extensions=extensions)
                self.enqueue("a")
                self.failing_drain(self.backend(SigningBackend))
                self.failing_drain(self.backend(SigningBackend))
                self.assertEqual(self.drain_with(SigningBackend).sent, 1)
                (stored,) = self.smtp.stored
                self.assertEqual((stored.message["X-Signatures"], stored.content.count(b"Sent by us")), ("signed", 1))

    def test_several_workers_sign_each_message_once(self) -> None:
        self.serve(always("dot", slowly))
        self.enqueue(*map(str, range(ENOUGH)))
        self.assertEqual(self.drain_with(SigningBackend, 3).sent, ENOUGH)
        self.assertEqual({stored.message["X-Signatures"] for stored in self.smtp.stored}, {"signed"})

    def test_log_has_each_message_of_each_worker(self) -> None:
        subjects, lock = Counter[str](), Lock()

        class Backend(QueuedEmailBackend):
            def _send(self, email_message: Any) -> Any:
                with lock:
                    subjects[email_message.subject] += 1
                return super()._send(email_message)

        self.serve(always("dot", slowly))
        self.enqueue(*map(str, range(ENOUGH)))
        self.drain_with(Backend, 3)
        self.assertEqual(subjects, self.smtp.copies)

    def test_message_is_sent_when_nothing_is_returned(self) -> None:
        for extensions, workers, messages in WAYS:
            with self.subTest(extensions=extensions, workers=workers):
                self.serve(always("dot", slowly), extensions=extensions)
                self.enqueue(*map(str, range(messages)))
                self.assertEqual(self.drain_with(SilentBackend, workers).sent, messages)
                self.assertEqual((len(self.queue), set(self.smtp.copies.values())), (0, {1}))

    def test_message_that_was_refused_is_not_sent_when_nothing_is_returned(self) -> None:
        self.serve(in_turn(dot=["450 later"]))
        self.enqueue("a")
        self.assertEqual(self.failing_drain(self.backend(SilentBackend)).requeued, 1)
        self.assertEqual(self.drain_with(SilentBackend).sent, 1)

    def test_message_is_sent_when_an_error_follows(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                self.serve(extensions=extensions)
                self.enqueue("a", "b")
                self.assertEqual(self.failing_drain(self.backend(StumblingBackend)).sent, 2)
                self.assertEqual((len(self.queue), self.smtp.copies), (0, {"a": 1, "b": 1}))

    def test_recipients_who_were_refused_are_tried_again_when_an_error_follows(self) -> None:
        self.serve(by_recipient({NAMES[1]: "450 later"}))
        self.enqueue("a", to=NAMES[:2])
        self.failing_drain(self.backend(StumblingBackend))
        self.assertEqual(self.left()[0]["remaining"], [NAMES[1]])
        self.smtp.script = lambda step, argument: None
        self.failing_drain(self.backend(StumblingBackend))
        self.assertEqual((len(self.queue), self.smtp.deliveries), (0, {NAMES[0]: 1, NAMES[1]: 1}))


class SplittingMixin:
    """Sends a message to one recipient after the other."""

    def _send(self: Any, email_message: Any) -> Any:
        for recipient in email_message.recipients():
            single = copy.copy(email_message)
            single.to, single.cc, single.bcc = [recipient], [], []
            super()._send(single)  # type: ignore[misc]
        return True


class SplittingBackend(SplittingMixin, QueuedEmailBackend):
    pass


class DjangoSplittingBackend(SplittingMixin, EmailBackend):
    pass


class CarefulSplittingBackend(QueuedEmailBackend):
    """Goes on with the next recipient when one is refused."""

    def _send(self, email_message: Any) -> Any:
        sent = False
        for recipient in email_message.recipients():
            single = copy.copy(email_message)
            single.to, single.cc, single.bcc = [recipient], [], []
            with suppress(smtplib.SMTPRecipientsRefused):
                sent = super()._send(single) or sent
        return sent


class SplitTests(SubclassTestCase):
    """A message that its backend sends in several transactions."""

    def check(self, kind: Any, script: Script, extensions: list[str], gone: tuple[str, ...] = ()) -> None:
        self.serve(script, extensions=extensions)
        self.enqueue("a", to=NAMES)
        self.failing_drain(self.backend(kind))
        self.assertLess(self.smtp.deliveries.total(), len(NAMES))
        self.assertGreater(self.smtp.deliveries.total(), 0)
        self.drain_until_empty(kind)
        self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(set(NAMES) - set(gone), 1)))
        self.assertEqual(len(self.discards()), len(gone))

    def test_server_sees_what_it_sees_without_a_queue(self) -> None:
        self.serve()
        self.django_backend(DjangoSplittingBackend).send_messages([message("a", list(NAMES))])
        self.enqueue("a", to=NAMES)
        self.assertEqual(self.drain_with(SplittingBackend).sent, 1)
        self.assertEqual(self.smtp.commands[0], self.smtp.commands[1])
        self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(NAMES, 2)))

    def test_one_is_refused_for_now(self) -> None:
        for kind, extensions in product((SplittingBackend, CarefulSplittingBackend), ([], PIPELINING)):
            with self.subTest(kind=kind, extensions=extensions):
                self.check(kind, in_turn(RCPT=[None, "450 later"]), extensions)

    def test_two_are_refused_for_now(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                self.check(CarefulSplittingBackend, in_turn(RCPT=[None, "450 later", "450 later"]), extensions)

    def test_one_is_refused_for_good(self) -> None:
        for kind, extensions in product((SplittingBackend, CarefulSplittingBackend), ([], PIPELINING)):
            with self.subTest(kind=kind, extensions=extensions):
                self.log.unlink(missing_ok=True)
                self.check(kind, by_recipient({NAMES[1]: "550 5.1.1 unknown"}), extensions, gone=NAMES[1:2])
                self.assertIn(f"To:{NAMES[1]}. Error: 550", self.discards()[0])

    def test_connection_is_lost_after_the_first(self) -> None:
        for step, fault, extensions in product(("MAIL", "RCPT", "DATA"), (smtp.fin, "421 closing"), ([], PIPELINING)):
            with self.subTest(step=step, fault=fault, extensions=extensions):
                self.serve(in_turn(**{step: [None, fault]}), extensions=extensions)
                self.enqueue("a", to=NAMES)
                self.assertEqual(self.drain_with(SplittingBackend).sent, 1)
                self.assertEqual(self.smtp.deliveries, Counter(dict.fromkeys(NAMES, 1)))

    def test_connection_is_lost_after_the_dot_of_the_second(self) -> None:
        for fault, extensions in product((smtp.fin, "421 closing"), ([], PIPELINING)):
            with self.subTest(fault=fault, extensions=extensions):
                self.check(SplittingBackend, in_turn(dot=[None, fault]), extensions)


class SiteSMTP(smtplib.SMTP):
    """Greets by a name of its own."""

    def ehlo(self, name: str = "") -> Any:
        return super().ehlo("site.example")


class ConnectionClassTests(SubclassTestCase):
    def test_class_of_the_site_s_own(self) -> None:
        class Backend(QueuedEmailBackend):
            connection_class = SiteSMTP

        names: Counter[str] = Counter()

        def script(step: str, argument: str) -> Any:
            names.update([argument] if step == "EHLO" else [])
            return slowly if step == "dot" else None

        self.serve(script, extensions=PIPELINING)
        self.enqueue(*map(str, range(ENOUGH)))
        self.assertEqual(self.drain_with(Backend, 3).sent, ENOUGH)
        self.assertEqual((names, set(self.smtp.copies.values())), ({"site.example": 3}, {1}))

    def test_django_s_with_an_argument_of_the_site_s(self) -> None:
        class Backend(QueuedEmailBackend):
            @property
            def connection_class(self) -> Any:
                return partial(super().connection_class, source_address=("127.0.0.2", 0))

        peers: set[str] = set()

        def note(session: Session) -> str:
            peers.add(session.socket.getpeername()[0])
            return slowly(session)

        self.serve(always("dot", note))
        self.enqueue(*map(str, range(ENOUGH)))
        self.assertEqual(self.drain_with(Backend, 3).sent, ENOUGH)
        self.assertEqual((peers, self.smtp.connections), ({"127.0.0.2"}, 3))


class OwnContextMixin:
    @property
    def connection_class(self) -> Any:
        # Django gives its own context as an argument, over one of partial()'s.
        chosen = super().connection_class  # type: ignore[misc]
        return lambda *args, **kwargs: chosen(*args, **{**kwargs, "context": client_context()})


class OwnContextBackend(OwnContextMixin, QueuedEmailBackend):
    pass


class DjangoOwnContextBackend(OwnContextMixin, EmailBackend):
    pass


class UnverifiedMixin:
    #: smtplib then makes one that trusts everybody.
    ssl_context = None


class UnverifiedBackend(UnverifiedMixin, QueuedEmailBackend):
    pass


class DjangoUnverifiedBackend(UnverifiedMixin, EmailBackend):
    pass


class StartTLSMixin:
    def open(self: Any) -> Any:
        is_new = super().open()  # type: ignore[misc]
        if is_new:
            self.connection.starttls()
        return is_new


class StartTLSBackend(StartTLSMixin, QueuedEmailBackend):
    pass


class DjangoStartTLSBackend(StartTLSMixin, EmailBackend):
    pass


@needs_openssl
class TLSTests(SubclassTestCase):
    """The certificate vouches for itself: Django's own context does not trust it."""

    def check(self, with_queue: Any, without: Any, **kwargs: Any) -> None:
        self.assertEqual(self.django_backend(without, **kwargs).send_messages([message("a")]), 1)
        for workers, messages in ((1, 3), (3, ENOUGH)):
            with self.subTest(workers=workers, **kwargs):
                del self.smtp.commands[:]
                self.enqueue(*map(str, range(messages)))
                self.assertEqual(self.drain_with(with_queue, workers, **kwargs).sent, messages)
                self.assertEqual(self.smtp.connections, workers)
                self.assertTrue(all("MAIL" in said and "mail" not in said for said in self.smtp.commands))

    def serve_tls(self, over_ssl: bool) -> None:
        self.serve(always("dot", slowly), context=server_context(), over_ssl=over_ssl, extensions=PIPELINING)

    def test_django_s_context_does_not_trust_the_server(self) -> None:
        self.serve_tls(over_ssl=True)
        with self.assertRaises(ssl.SSLError):
            self.django_backend(use_ssl=True).send_messages([message("a")])
        self.enqueue("a")
        self.failing_drain(self.backend(use_ssl=True))
        self.assertEqual((len(self.smtp.stored), len(self.queue)), (0, 1))

    def test_context_of_the_site_s_own(self) -> None:
        self.serve_tls(over_ssl=True)
        self.check(OwnContextBackend, DjangoOwnContextBackend, use_ssl=True)

    def test_no_context_over_ssl(self) -> None:
        self.serve_tls(over_ssl=True)
        self.check(UnverifiedBackend, DjangoUnverifiedBackend, use_ssl=True)

    def test_no_context_for_starttls(self) -> None:
        self.serve_tls(over_ssl=False)
        self.check(UnverifiedBackend, DjangoUnverifiedBackend, use_tls=True)

    def test_starttls_without_a_context_in_open(self) -> None:
        self.serve_tls(over_ssl=False)
        self.check(StartTLSBackend, DjangoStartTLSBackend)


class CloseTests(SubclassTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.closed: list[bool] = []

        class Backend(QueuedEmailBackend):
            def close(backend) -> None:
                self.closed.append(backend.connection is not None)
                super().close()

        self.kind = Backend

    def test_called_for_each_connection_that_is_retired(self) -> None:
        for workers in (1, 3):
            with self.subTest(workers=workers):
                self.closed.clear()
                self.serve(always("dot", slowly))
                self.enqueue(*map(str, range(ENOUGH)))
                self.assertEqual(self.drain_with(self.kind, workers).sent, ENOUGH)
                self.assertEqual((self.closed.count(True), self.smtp.said("QUIT")), (workers, workers))

    def test_called_after_a_hundred_messages(self) -> None:
        self.serve()
        self.enqueue(*map(str, range(101)))
        self.drain_with(self.kind)
        self.assertEqual((self.closed.count(True), self.smtp.said("QUIT")), (2, 2))

    def test_not_suppressed_while_a_message_is_sent(self) -> None:
        class Backend(self.kind):  # type: ignore[name-defined, misc]
            def _send(self, email_message: Any) -> Any:
                sent = super()._send(email_message)
                self.close()
                return sent

        self.serve()
        self.enqueue("a", "b")
        self.assertEqual(self.drain_with(Backend).sent, 2)
        self.assertEqual((self.smtp.connections, self.smtp.said("QUIT"), self.closed.count(True)), (2, 2, 2))

    def test_error_of_its_own_costs_no_message(self) -> None:
        class Backend(QueuedEmailBackend):
            def close(self) -> None:
                super().close()
                raise ValueError("ours")

        self.serve()
        self.enqueue("a")
        self.assertEqual(self.drain_with(Backend).sent, 1)
        self.assertEqual((self.smtp.said("QUIT"), len(self.queue)), (1, 0))
