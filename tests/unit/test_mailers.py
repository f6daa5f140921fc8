"""Django 6.1's MAILERS, and EMAIL_BACKEND before it: valid configurations, and the backends that the command drains."""

from __future__ import annotations

from io import StringIO
from typing import Any
from unittest import skipUnless

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.console import EmailBackend as ConsoleBackend
from django.core.mail.backends.locmem import EmailBackend as LocmemBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.core.management import CommandError, call_command
from django.test import SimpleTestCase, TestCase, override_settings

from mailqueue_backend.checks import check_mailers, check_settings
from mailqueue_backend.mail.base import QueueingMixin
from mailqueue_backend.mail.mailers import backends_to_drain
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import BACKEND, QueueTestCase, message, process_mail_queue

NOTHING = "0 messages sent and 0 messages discarded out of 0 messages.\n"

needs_mailers = skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")


class QueuedLocmemBackend(QueueingMixin, LocmemBackend):  # type: ignore[misc]
    """A site's own queueing backend, which delivers in this process."""


def mailers(**aliases: Any) -> Any:
    return override_settings(MAILERS=aliases)


def queueing(**options: Any) -> dict[str, Any]:
    """Return the configuration of a queueing mailer."""
    return {"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", **options}}


@needs_mailers
class RewriteTests(SimpleTestCase):
    """The rewrite that Django's migration guide describes: EMAIL_* settings become OPTIONS."""

    OPTIONS = {
        "host": "smtp.example.com",
        "port": 2525,
        "username": "user",
        "password": "secret",
        "use_tls": True,
        "timeout": 12,
        "ssl_keyfile": "key",
        "ssl_certfile": "certificate",
    }

    def test_all_options_of_djangos_backend_are_accepted(self) -> None:
        for options in (self.OPTIONS, {**self.OPTIONS, "use_tls": False, "use_ssl": True}):
            with mailers(default={"BACKEND": BACKEND, "OPTIONS": options}):
                backend = mail.mailers.default
            self.assertIs(type(backend), QueuedEmailBackend)
            self.assertEqual({name: getattr(backend, name) for name in options}, options)
            self.assertEqual(backend.alias, "default")

    def test_port_follows_from_the_encryption(self) -> None:
        for options, port in (({}, 25), ({"use_tls": True}, 587), ({"use_ssl": True}, 465)):
            with (
                self.subTest(options),
                mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", **options}}),
            ):
                self.assertEqual(mail.mailers.default.port, port)

    def test_wrong_options_are_an_invalid_mailer(self) -> None:
        for options, reason in (
            ({"host": "127.0.0.1", "colour": "red"}, "Unknown options 'colour'"),
            ({}, "OPTIONS must define 'host'"),
            ({"host": "127.0.0.1", "use_tls": True, "use_ssl": True}, "incompatible"),
        ):
            with (
                self.subTest(reason),
                mailers(default={"BACKEND": BACKEND, "OPTIONS": options}),
                self.assertRaisesMessage(mail.InvalidMailer, reason),
            ):
                mail.mailers["default"]

    def test_arguments_of_0_1_2_are_options_too(self) -> None:
        with mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "test": True}}):
            self.assertFalse(mail.mailers.default.fail_silently)
        with mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "fail_silently": True}}):
            self.assertTrue(mail.mailers.default.fail_silently)

    def test_queue_is_an_option(self) -> None:
        with mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1", "queue": "FAST"}}):
            self.assertEqual(mail.mailers.default.que.name, "FAST")

    def test_deprecated_keywords_still_reach_the_default_mailer(self) -> None:
        with mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1"}}), self.assertWarns(Warning):
            self.assertTrue(mail.get_connection(fail_silently=True).fail_silently)


@needs_mailers
class CheckTests(SimpleTestCase):
    def problems(self, **aliases: Any) -> list[tuple[str | None, str]]:
        with mailers(**aliases):
            return [(problem.id, problem.msg) for problem in check_mailers()]

    def test_good_mailers_pass(self) -> None:
        self.assertEqual(self.problems(default=queueing(), news=queueing(queue="NEWS"), own={"OPTIONS": {}}), [])

    def test_each_unusable_queueing_mailer_is_reported(self) -> None:
        problems = self.problems(default=queueing(colour="red"), news={"BACKEND": BACKEND}, own=queueing())
        self.assertEqual([identity for identity, _ in problems], ["mailqueue_backend.E003"] * 2)
        self.assertIn("Unknown options 'colour'", problems[0][1])
        self.assertIn("OPTIONS must define 'host'", problems[1][1])

    def test_class_that_cannot_be_imported_is_a_warning(self) -> None:
        (problem,) = self.problems(default=queueing(), news={"BACKEND": "nowhere.EmailBackend"})
        self.assertEqual(problem[0], "mailqueue_backend.W002")
        self.assertIn("MAILERS['news']: 'nowhere.EmailBackend' cannot be imported", problem[1])

    def test_mailers_of_a_wrong_type_are_reported_once(self) -> None:
        with override_settings(MAILERS=[]):
            self.assertEqual(check_mailers(), [])
            self.assertEqual([problem.id for problem in check_settings()], ["mailqueue_backend.E001"])


class UnusableBackend(BaseEmailBackend):
    """A site's backend, which needs more than EMAIL_BACKEND gives it."""

    def __init__(self, key: str, **kwargs: Any) -> None:
        raise AssertionError("instantiated")


class PrintingBackend(SMTPBackend, ConsoleBackend):  # type: ignore[misc]
    """A site's backend, which prints what it sends."""


@needs_mailers
class DirectUseTests(TestCase):
    def test_backend_without_arguments_lacks_the_settings_that_mailers_replaced(self) -> None:
        with mailers(default={"BACKEND": BACKEND, "OPTIONS": {"host": "127.0.0.1"}}):
            with self.assertRaisesMessage(AttributeError, "EMAIL_HOST setting is not available"):
                QueuedEmailBackend()
            self.assertIsInstance(mail.mailers.default, QueuedEmailBackend)

    def test_errors_are_configuration_errors_of_django(self) -> None:
        with mailers(default={"BACKEND": BACKEND}), self.assertRaises(ImproperlyConfigured):
            mail.mailers.default.send_messages([message()])


class EmailBackendTests(QueueTestCase):
    """The backends that the command drains when EMAIL_BACKEND decides."""

    def test_using_must_be_the_default(self) -> None:
        self.assertEqual(process_mail_queue("--using", "default"), NOTHING)
        with self.assertRaisesMessage(CommandError, "There is no mailer 'news'"):
            process_mail_queue("--using", "news")

    @override_settings(EMAIL_BACKEND="tests.unit.test_mailers.QueuedLocmemBackend")
    def test_queue_before_the_locmem_backend_is_ours(self) -> None:
        self.assertEqual([type(backend) for backend in backends_to_drain()], [QueuedLocmemBackend])

    @override_settings(EMAIL_BACKEND="nowhere.EmailBackend")
    def test_backend_that_cannot_be_imported_is_an_error_with_the_reason(self) -> None:
        with self.assertRaisesMessage(CommandError, "EMAIL_BACKEND: 'nowhere.EmailBackend' cannot be imported"):
            process_mail_queue()

    @override_settings(EMAIL_BACKEND="tests.unit.test_mailers.UnusableBackend")
    def test_other_backend_is_not_instantiated(self) -> None:
        self.assertEqual([type(backend) for backend in backends_to_drain()], [QueuedEmailBackend])

    @override_settings(EMAIL_BACKEND="tests.unit.test_mailers.PrintingBackend")
    def test_backend_that_prints_and_sends_does_not_deliver_to_nobody(self) -> None:
        self.assertEqual([type(backend) for backend in backends_to_drain()], [QueuedEmailBackend])

    def test_nothing_is_ours_if_the_backend_delivers_to_nobody(self) -> None:
        for name in ("console", "dummy", "filebased", "locmem"):
            path = f"django.core.mail.backends.{name}.EmailBackend"
            with self.subTest(name), override_settings(EMAIL_BACKEND=path):
                stderr = StringIO()
                call_command("process_mail_queue", stdout=StringIO(), stderr=stderr)
                self.assertIn(f"nothing to deliver (EMAIL_BACKEND is {path})", stderr.getvalue())
