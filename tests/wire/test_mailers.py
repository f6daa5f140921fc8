"""Django 6.1's MAILERS: each message is delivered by the mailer by which it was sent, and by no other."""

from __future__ import annotations

from datetime import datetime, timedelta
from io import StringIO
from typing import Any
from unittest import mock, skipUnless

from django.core import mail
from django.core.management import CommandError, call_command
from django.test import TransactionTestCase, override_settings

from mailqueue_backend.envelope import META_KEY, Envelope, dumps, loads
from mailqueue_backend.mail.mailers import backends_to_drain
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import BACKEND, MailTestCase, message, process_mail_queue
from tests.smtp import always, by_recipient
from tests.smtp.inbox import Inbox, MailServer, SMTPServerMixin

SMTP = "django.core.mail.backends.smtp.EmailBackend"
LOCMEM = "django.core.mail.backends.locmem.EmailBackend"
SUMMARY = "{} sent and 0 messages discarded out of {}.\n"
DELIVERY = "mailqueue_backend.delivery"

needs_mailers = skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")


class OldSubclass(QueuedEmailBackend):
    """Of 2015, it knows no alias."""

    def __init__(self, fail_silently: bool = False) -> None:
        super().__init__(fail_silently=fail_silently)


def summary(sent: int, length: int) -> str:
    words = [f"{number} message" if number == 1 else f"{number} messages" for number in (sent, length)]
    return SUMMARY.format(*words)


def mailers(**aliases: Any) -> Any:
    return override_settings(MAILERS=aliases)


def send(subject: str, using: str = "default", **kwargs: Any) -> None:
    message(subject, **kwargs).send(using=using)


@needs_mailers
class MailersTestCase(MailTestCase):
    """A site with two SMTP servers: ``inbox`` and ``other``."""

    def setUp(self) -> None:
        super().setUp()
        self.other = Inbox()
        self.other_server = MailServer(self.other)
        self.other_server.start()
        self.addCleanup(self.stop_other_server)

    def stop_other_server(self) -> None:
        if not self.other_server.loop.is_closed():
            self.other_server.stop(no_assert=True)

    def first(self, **options: Any) -> dict[str, Any]:
        """Configure a queueing mailer with the server of ``inbox``."""
        return {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": self.server.port, **options}}

    def second(self, **options: Any) -> dict[str, Any]:
        """Configure a queueing mailer with the server of ``other``."""
        return {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": self.other_server.port, **options}}

    def assertArrived(self, inbox: list[str], other: list[str]) -> None:
        self.assertEqual((sorted(self.inbox.subjects), sorted(self.other.subjects)), (sorted(inbox), sorted(other)))

    def stored(self) -> list[dict[str, Any]]:
        """Take all messages out of the queue, and return the Meta of each."""
        return [loads(payload).extra[META_KEY] for payload in self.queue.read_many(100)]


class EachByItsOwnTests(MailersTestCase):
    """Several mailers on one queue."""

    def test_alias_is_kept_and_delivers_with_its_own_options(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("order")
            send("offer", using="news")
            self.assertEqual(len(self.queue), 2)
            self.assertEqual(process_mail_queue(), summary(2, 2))
        self.assertArrived(["order"], ["offer"])

    def test_login_is_that_of_the_alias(self) -> None:
        inbox = LoginInbox()
        server = MailServer(inbox, authenticator=inbox.authenticate, auth_require_tls=False)
        server.start()
        self.addCleanup(server.stop, no_assert=True)
        options = {"host": "127.0.0.1", "port": server.port}
        one, two = ({"username": name, "password": f"secret of {name}"} for name in ("one", "two"))
        with mailers(
            default={"BACKEND": BACKEND, "OPTIONS": {**options, **one}},
            two={"BACKEND": BACKEND, "OPTIONS": {**options, **two}},
        ):
            send("a", using="two")
            send("b")
            with self.assertLogs("mail.log", "WARNING"):  # aiosmtpd warns of itself
                process_mail_queue()
        self.assertEqual(inbox.logins, {"a": ("two", "secret of two"), "b": ("one", "secret of one")})

    def test_every_way_of_sending_keeps_the_alias(self) -> None:
        arguments = ("Hello", "Body", "from@example.com", ["to@example.com"])
        with mailers(default=self.first(), news=self.second()):
            mail.send_mail(*arguments, using="news")
            mail.send_mass_mail([arguments], using="news")
            mail.mailers["news"].send_messages([message()])
            mail.send_mail(*arguments)
        self.assertEqual([ours["using"] for ours in self.stored()], ["news", "news", "news", "default"])

    def test_failed_message_keeps_its_alias(self) -> None:
        with (
            self.scripted(always("dot", "451 later")) as smtp,
            mailers(default=self.first(), news=self.second(port=smtp.port)),
            self.assertLogs(DELIVERY, "WARNING"),
        ):
            send("offer", using="news")
            process_mail_queue()
        with mailers(default=self.first(), news=self.second()):
            self.assertEqual(process_mail_queue(), summary(1, 1))
        self.assertArrived([], ["offer"])

    def test_one_drain_serves_the_queue_whichever_mailer_is_asked(self) -> None:
        for using in ("default", "news"):
            with self.subTest(using=using), mailers(default=self.first(), news=self.second()):
                send("order")
                send("offer", using="news")
                self.assertEqual(process_mail_queue("--using", using), summary(2, 2))
        self.assertArrived(["order"] * 2, ["offer"] * 2)

    def test_drain_of_a_mailer_made_by_hand_is_of_the_mailers_too(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("order")
            send("offer", using="news")
            mail.mailers["news"].send_queued_messages()
        self.assertArrived(["order"], ["offer"])


class LoginInbox(Inbox):
    """Notes who had logged in when a message came."""

    def __init__(self) -> None:
        super().__init__()
        self.logins: dict[str, tuple[str, str]] = {}

    def authenticate(self, server: Any, session: Any, envelope: Any, mechanism: str, data: Any) -> Any:
        from aiosmtpd.smtp import AuthResult

        return AuthResult(success=True, auth_data=data)

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        answer = await super().handle_DATA(server, session, envelope)
        login = session.auth_data
        self.logins[self.subjects[-1]] = (login.login.decode(), login.password.decode())
        return answer


class OwnQueueTests(MailersTestCase):
    """A mailer may have a queue of its own."""

    def setUp(self) -> None:
        super().setUp()
        both = mailers(default=self.first(), news=self.second(queue="NEWS"))
        both.enable()
        self.addCleanup(both.disable)
        send("order")
        send("offer", using="news")

    def test_its_mail_is_there(self) -> None:
        self.assertEqual([len(open_queue(name)) for name in ("MAIL_QUEUE", "NEWS")], [1, 1])

    def test_all_queues_are_drained_and_counted_together(self) -> None:
        self.assertEqual(process_mail_queue(), summary(2, 2))
        self.assertArrived(["order"], ["offer"])

    def test_using_drains_that_queue_alone(self) -> None:
        self.assertEqual(process_mail_queue("--using", "news"), summary(1, 1))
        self.assertArrived([], ["offer"])
        self.assertEqual(len(self.queue), 1)

    def test_limit_is_for_all_queues_together(self) -> None:
        send("later")
        self.assertEqual(process_mail_queue("--limit", "2"), summary(2, 3))
        self.assertArrived(["order", "later"], [])

    def test_time_limit_is_for_all_queues_together(self) -> None:
        with mock.patch("mailqueue_backend.mail.mailers.monotonic", side_effect=[0.0, 100.0, 100.0]):
            self.assertEqual(process_mail_queue("--time-limit", "60"), summary(1, 2))

    def test_mail_of_a_mailer_that_has_moved_to_another_queue_is_delivered_by_it(self) -> None:
        with mailers(default=self.first(), news=self.second(queue="OFFERS")):
            backend = QueuedEmailBackend(alias="news", host="127.0.0.1", queue="MAIL_QUEUE")
            backend.send_messages([message("old offer")])
            self.assertEqual(process_mail_queue(), summary(2, 2))
        self.assertArrived(["order"], ["old offer"])

    def test_dead_server_ends_the_drain_of_a_queue_that_no_other_mailer_uses(self) -> None:
        self.stop_server()
        send("another order")
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            self.assertEqual(process_mail_queue(), summary(1, 3))
        self.assertEqual(len(logged.output), 1)


class DeadServerTests(MailersTestCase):
    """One mailer's server is dead."""

    def test_others_are_not_held_up_and_its_messages_keep_their_attempts(self) -> None:
        for dead, alive in (("news", "default"), ("default", "news")):
            with self.subTest(dead=dead), mailers(default=self.first(), news=self.second()):
                settings = {dead: self.first(port=1), alive: self.second()}
                with mailers(**settings), self.assertLogs(DELIVERY, "WARNING") as logged:
                    for number in range(2):
                        send(f"dead {number}", using=dead)
                        send(f"alive {number}", using=alive)
                    self.assertEqual(process_mail_queue(), summary(2, 4))
                self.assertArrived([], ["alive 0", "alive 1"])
                self.assertEqual([ours.get("attempts", 0) for ours in self.stored()], [0, 0])
                # The server was asked once, and that is said once.
                self.assertEqual(len(logged.output), 1)
                self.assertIn(f"mailer '{dead}', 127.0.0.1:1: connection refused", logged.output[0])
                self.other.received.clear()

    def test_expired_message_of_the_dead_mailer_is_discarded(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            self.stop_other_server()
            mail.mailers["news"].send_messages([message("old")], created=datetime.now() - timedelta(days=2))
            send("order")
            with self.assertLogs(DELIVERY, "WARNING"):
                process_mail_queue()
        self.assertArrived(["order"], [])
        self.assertIn("Subject: old", self.log_lines()[0])


class StrandedTests(MailersTestCase):
    """The mailer by which a message was sent is not there."""

    def strand(self, expected: str, *subjects: str, **aliases: Any) -> None:
        """Drain with these mailers, and see that the messages wait, with a line that says why."""
        length = len(self.queue)
        with mailers(**aliases), self.assertLogs(DELIVERY, "WARNING") as logged:
            process_mail_queue()
        self.assertTrue(any(expected in output for output in logged.output), logged.output)
        self.assertEqual(sorted(self.waiting()), sorted(subjects))
        self.assertLessEqual(len(self.queue), length)

    def waiting(self) -> list[str]:
        payloads = self.queue.read_many(100)
        self.queue.write_many(*payloads)
        return [loads(payload).email.subject for payload in payloads]

    def test_removed_mailer(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("offer", using="news")
            send("order")
        self.strand("'news', by which it was sent", "offer", default=self.first())
        self.assertArrived(["order"], [])

    def test_mailer_that_queues_no_more(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("offer", using="news")
        direct = {**self.second(), "BACKEND": SMTP}
        self.strand("'news', by which it was sent", "offer", default=self.first(), news=direct)
        self.assertArrived([], [])

    def test_it_goes_out_when_the_mailer_is_back(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("offer", using="news")
        self.strand("'news'", "offer", default=self.first())
        with mailers(default=self.first(), news=self.second()):
            process_mail_queue()
        self.assertArrived([], ["offer"])

    def test_it_expires_with_a_line_in_the_discard_log(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            mail.mailers["news"].send_messages([message("offer")], created=datetime.now() - timedelta(days=2))
        self.strand("'news'", default=self.first())
        (line,) = self.log_lines()
        self.assertIn("Subject: offer", line)
        self.assertIn("Error: 'news', by which it was sent, is not a mailer that queues its mail", line)

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_refusal_of_the_message_before_is_not_its_own(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            send("order", to=["bad@example.com", "to@example.com"])
            send("offer", using="news")
        with self.scripted(by_recipient({"bad@example.com": "550 5.1.1 no"})) as smtp:
            self.strand("'news'", "offer", default=self.first(port=smtp.port))
        self.assertEqual(len(self.log_lines()), 1)

    def test_mailer_without_a_working_configuration(self) -> None:
        for what, broken in (
            ("Unknown options 'colour'", self.second(colour="red")),
            ("OPTIONS must define 'host'", {"BACKEND": BACKEND}),
            ("No module named 'nowhere'", {"BACKEND": "nowhere.EmailBackend"}),
            ("unexpected keyword argument 'alias'", {"BACKEND": "tests.wire.test_mailers.OldSubclass"}),
        ):
            with self.subTest(what):
                with mailers(default=self.first(), news=self.second()):
                    send("offer", using="news")
                    send("order")
                self.strand(what, "offer", default=self.first(), news=broken)
                with mailers(default=self.first(), news=broken), self.assertRaisesMessage(CommandError, what):
                    process_mail_queue("--using", "news")
                self.queue.read_many(100)

    def test_only_mailer_without_a_working_configuration_is_an_error(self) -> None:
        with mailers(default={"BACKEND": BACKEND}), self.assertRaisesMessage(CommandError, "must define 'host'"):
            process_mail_queue()


class UnnamedTests(MailersTestCase):
    """A message that does not say by which mailer it was sent: 0.1.2's, or one of a site with EMAIL_BACKEND."""

    def setUp(self) -> None:
        super().setUp()
        QueuedEmailBackend().send_messages([message("old")])

    def test_goes_by_the_default_mailer_whichever_queue_mate_is_asked(self) -> None:
        with mailers(news=self.second(), default=self.first()):
            process_mail_queue("--using", "news")
        self.assertArrived(["old"], [])

    def test_payload_of_0_1_2_does_too(self) -> None:
        self.queue.read()
        signed = dumps(Envelope(message("older"), datetime.now()))
        self.queue.write(signed[:-36])
        with mailers(news=self.second(), default=self.first()):
            process_mail_queue()
        self.assertArrived(["older"], [])

    def test_goes_by_the_only_mailer_of_its_queue(self) -> None:
        payload = self.queue.read() or b""
        for default in ({"BACKEND": LOCMEM}, self.first(queue="FAST")):
            with self.subTest(default), mailers(default=default, news=self.second()):
                self.queue.write(payload)
                process_mail_queue()
                self.assertArrived([], ["old"])
                self.other.received.clear()

    def test_waits_where_that_would_be_a_guess(self) -> None:
        with mailers(one=self.first(), two=self.second()), self.assertLogs(DELIVERY, "WARNING") as logged:
            self.assertEqual(process_mail_queue(), "1 message requeued.\n" + summary(0, 1))
        self.assertIn(
            "it does not say by which mailer it was sent, and 'default' does not queue here", logged.output[0]
        )
        self.assertArrived([], [])

    def test_change_to_mailers_and_back(self) -> None:
        with mailers(default=self.first(), news=self.second()):
            self.assertEqual(process_mail_queue(), summary(1, 1))
            send("order")
            send("offer", using="news")
        with self.assertLogs(DELIVERY, "WARNING") as logged:
            self.assertEqual(process_mail_queue(), "1 message requeued.\n" + summary(1, 2))
        self.assertArrived(["old", "order"], [])
        self.assertIn("'news', by which it was sent", logged.output[0])


@needs_mailers
class WhichMailersTests(MailersTestCase):
    """What the command drains."""

    def drained(self, **aliases: Any) -> list[str | None]:
        with mailers(**aliases):
            return [backend.alias for backend in backends_to_drain()]

    def test_one_mailer_for_each_queue_in_the_order_of_the_settings(self) -> None:
        self.assertEqual(
            self.drained(a=self.first(), b=self.second(queue="B"), c=self.first(), d=self.second(queue="B")),
            ["a", "b"],
        )

    def test_mailers_that_do_not_queue_are_none_of_ours(self) -> None:
        self.assertEqual(self.drained(default={**self.first(), "BACKEND": SMTP}, news=self.second()), ["news"])
        self.assertEqual(self.drained(), [])

    def test_backend_may_be_left_out(self) -> None:
        self.assertEqual(self.drained(default={"OPTIONS": {"host": "127.0.0.1"}}), [])

    def test_using_must_name_a_mailer_that_queues(self) -> None:
        direct = {**self.first(), "BACKEND": SMTP}
        for using in ("direct", "nonsense"):
            with (
                self.subTest(using),
                mailers(default=self.first(), direct=direct),
                self.assertRaisesMessage(CommandError, f"MAILERS has no '{using}' that queues its mail"),
            ):
                process_mail_queue("--using", using)

    def test_nothing_is_ours_in_a_test_run(self) -> None:
        with mailers(default=self.first()):
            send("Hello")
        with mailers(default={"BACKEND": LOCMEM}, news={"BACKEND": LOCMEM}):
            for words in ((), ("--using", "news")):
                stdout, stderr = StringIO(), StringIO()
                call_command("process_mail_queue", *words, stdout=stdout, stderr=stderr)
                self.assertEqual(stdout.getvalue(), summary(0, 0))
                self.assertIn("No mailer of this site queues its mail", stderr.getvalue())
        self.assertEqual((self.inbox.connections, len(self.queue)), (0, 1))


@needs_mailers
class ManyTests(SMTPServerMixin, TransactionTestCase):
    """Several workers, each with a connection to each server."""

    def test_each_message_goes_once_to_its_own_server(self) -> None:
        other = Inbox()
        other_server = MailServer(other)
        other_server.start()
        self.addCleanup(other_server.stop, no_assert=True)
        servers = {"default": self.server, "news": other_server}
        settings = mailers(
            **{
                alias: {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "port": server.port}}
                for alias, server in servers.items()
            }
        )
        with settings:
            for number in range(30):
                send(f"order {number}")
                send(f"offer {number}", using="news")
            self.assertEqual(process_mail_queue("--workers", "3"), summary(60, 60))
        self.assertEqual(sorted(self.inbox.subjects), sorted(f"order {number}" for number in range(30)))
        self.assertEqual(sorted(other.subjects), sorted(f"offer {number}" for number in range(30)))
        self.assertLessEqual(self.inbox.connections, 3)
