"""A server or a login that is given for one message only: the queue cannot keep it, and says so once."""

from __future__ import annotations

from typing import Any
from unittest import skipIf, skipUnless

from django.core import mail
from django.test import override_settings

from mailqueue_backend.mail import ignored, relay
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import BACKEND, QueueTestCase, message

STORING = "mailqueue_backend.storing"


class OwnServer(QueuedEmailBackend):
    """Has its server and its login from its site."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "host": "own.example.com", "username": "own", "password": "kept-secret"})


class NeedsArgument(QueuedEmailBackend):
    def __init__(self, account: str, **kwargs: Any) -> None:
        super().__init__(host=account, **kwargs)


class IgnoredArgumentsTestCase(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        ignored._warned_of.clear()

    def warning(self, send: Any) -> str:
        with self.assertLogs(STORING, "WARNING") as logged:
            send()
        (line,) = logged.output
        return line

    def assertSilent(self, backend: Any) -> None:
        with self.assertNoLogs(STORING):
            self.assertEqual(backend.send_messages([message()]), 1)


class SettingsTests(IgnoredArgumentsTestCase):
    def test_login_of_one_message_is_ignored_with_a_warning(self) -> None:
        line = self.warning(
            lambda: QueuedEmailBackend(username="me", password="kept-secret").send_messages([message()])
        )
        self.assertIn("Ignored: username, password,", line)
        self.assertIn("MAILERS", line)
        self.assertIn("subclass of QueuedEmailBackend", line)
        self.assertNotIn("kept-secret", line)

    def test_other_server_is_ignored_with_a_warning(self) -> None:
        backend = QueuedEmailBackend("other.example.com", 2525, use_ssl=True, timeout=7)
        self.assertIn("host, port, use_ssl, timeout,", self.warning(lambda: backend.send_messages([message()])))

    @skipIf(hasattr(mail, "mailers"), "Django 6.1 warns of it itself")
    @override_settings(MAIL_QUEUE_DELIVERY_BACKEND="django.core.mail.backends.dummy.EmailBackend")
    def test_relay_warns_too(self) -> None:
        backend = relay.QueuedEmailBackend(username="me")
        self.assertIn("Ignored: username,", self.warning(lambda: backend.send_messages([message()])))
        self.assertSilent(relay.QueuedEmailBackend(username=None))

    def test_each_kind_is_named_once(self) -> None:
        def send() -> None:
            for host in ("a.example.com", "b.example.com"):
                QueuedEmailBackend(host).send_messages([message(), message()])
                QueuedEmailBackend(username=host).send_messages([message()])

        with self.assertLogs(STORING, "WARNING") as logged:
            send()
        self.assertEqual(len(logged.output), 2)
        with self.assertNoLogs(STORING):
            send()

    @override_settings(EMAIL_HOST="mail.example.com", EMAIL_HOST_USER="site")
    def test_values_of_the_settings_are_not_ignored(self) -> None:
        self.assertSilent(QueuedEmailBackend("mail.example.com", username="site", use_tls=False))
        self.assertSilent(QueuedEmailBackend(None, None, None, None, None, True))

    def test_subclass_keeps_its_own_server(self) -> None:
        self.assertSilent(OwnServer())

    def test_arguments_that_a_subclass_ignores_itself_are_its_business(self) -> None:
        self.assertSilent(OwnServer(host="other.example.com"))

    def test_class_that_cannot_be_made_again_stores_all_the_same(self) -> None:
        self.assertSilent(NeedsArgument("other.example.com"))

    def test_nothing_is_said_before_something_is_queued(self) -> None:
        with self.assertNoLogs(STORING):
            QueuedEmailBackend("other.example.com").send_messages([message(to=[])])


@skipIf(hasattr(mail, "mailers"), "Django 6.1 deprecates the login of one message")
class SendMailTests(IgnoredArgumentsTestCase):
    def test_login_of_send_mail(self) -> None:
        def send(**kwargs: Any) -> None:
            mail.send_mail("S", "B", "from@example.com", ["to@example.com"], **kwargs)

        with self.assertNoLogs(STORING):
            send()
        self.assertIn("username, password", self.warning(lambda: send(auth_user="me", auth_password="kept-secret")))


@skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
class MailersTests(IgnoredArgumentsTestCase):
    MAILERS = {"default": {"BACKEND": BACKEND, "OPTIONS": {"host": "mail.example.com", "username": "site"}}}

    def test_options_of_a_mailer_are_its_own(self) -> None:
        with override_settings(MAILERS=self.MAILERS):
            self.assertSilent(mail.mailers["default"])

    def test_login_of_one_message_is_ignored_with_a_warning(self) -> None:
        with override_settings(MAILERS=self.MAILERS):
            backend = mail.mailers.create_connection("default", _deprecated_kwargs={"username": "me", "host": "x"})
            self.assertIn("Ignored: host, username,", self.warning(lambda: backend.send_messages([message()])))
