"""Settings are typed, read at use, and checked."""

from __future__ import annotations

import math
from unittest import mock

from django.core.exceptions import ImproperlyConfigured
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import SimpleTestCase, override_settings

from mailqueue_backend import settings as package_settings
from mailqueue_backend.checks import check_queue, check_settings
from mailqueue_backend.settings import conf


class SettingTests(SimpleTestCase):
    def test_value_is_read_when_it_is_used(self) -> None:
        with override_settings(MAIL_QUEUE_EXPIRE=7):
            self.assertEqual(conf.MAIL_QUEUE_EXPIRE, 7)
        self.assertEqual(conf.MAIL_QUEUE_EXPIRE, 86400)

    @override_settings(MAIL_QUEUE_EXPIRE="86400")
    def test_wrong_type_is_an_error_that_names_the_setting_and_says_what_to_write(self) -> None:
        with self.assertRaisesMessage(
            ImproperlyConfigured,
            "MAIL_QUEUE_EXPIRE in your settings must be int or float, not str. Write a number; "
            'from the environment, write MAIL_QUEUE_EXPIRE = int(os.environ["MAIL_QUEUE_EXPIRE"]).',
        ):
            _ = conf.MAIL_QUEUE_EXPIRE

    def test_boolean_is_no_number(self) -> None:
        for name in ("MAIL_QUEUE_WORKERS", "MAIL_QUEUE_EXPIRE", "QUEUE_REDIS_DB"):
            with (
                self.subTest(name),
                override_settings(**{name: True}),
                self.assertRaisesRegex(ImproperlyConfigured, f"{name} in your settings must be int.*, not bool"),
            ):
                getattr(conf, name)

    def test_number_out_of_range_is_an_error(self) -> None:
        for name, wrong in (("LEASE", 0), ("WORKERS", 0), ("EXPIRE", -1), ("EXPIRE", float("nan")), ("RATE", math.inf)):
            with (
                self.subTest(name, wrong=wrong),
                override_settings(**{f"MAIL_QUEUE_{name}": wrong}),
                self.assertRaisesRegex(ImproperlyConfigured, f"{name} in .* must be a finite number, .*, not {wrong}"),
            ):
                getattr(conf, f"MAIL_QUEUE_{name}")

    def test_settings_of_queue_front_may_be_text_that_is_a_number(self) -> None:
        for text, numbers in (("3", (3, 3.0)), ("", (None, None))):
            with override_settings(QUEUE_REDIS_DB=text, QUEUE_REDIS_TIMEOUT=text):
                self.assertEqual((conf.QUEUE_REDIS_DB, conf.QUEUE_REDIS_TIMEOUT), numbers)

    def test_unknown_constant_is_an_attribute_error(self) -> None:
        with self.assertRaises(AttributeError):
            _ = package_settings.QUEUE_SIZE


class CheckTests(SimpleTestCase):
    def test_good_settings_pass(self) -> None:
        self.assertEqual([*check_settings(), *check_queue()], [])

    @override_settings(MAIL_QUEUE_EXPIRE="soon", MAIL_QUEUE_NAME=3)
    def test_each_wrong_setting_is_reported(self) -> None:
        self.assertEqual([problem.id for problem in check_settings()], ["mailqueue_backend.E001"] * 2)

    @override_settings(MAIL_QUEUE_EXPIRE="soon")
    def test_checks_run_with_manage_py_check(self) -> None:
        with mock.patch("sys.stderr"), self.assertRaisesMessage(SystemCheckError, "mailqueue_backend.E001"):
            call_command("check", tags=["compatibility"])

    def test_engines_that_cannot_hold_mail_are_named(self) -> None:
        for backend in ("beanstalkd", "sqs", "memcached"):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend):
                self.assertEqual(check_queue()[0].id, "mailqueue_backend.W001")
                self.assertIn(backend, check_queue()[0].msg)

    @override_settings(QUEUE_BACKEND="tests.no_such_queue")
    def test_engine_that_cannot_be_imported_is_reported_with_the_cause(self) -> None:
        (problem,) = check_queue()
        self.assertEqual(problem.id, "mailqueue_backend.E002")
        self.assertIn("no_such_queue", problem.msg)

    @override_settings(INSTALLED_APPS=["mailqueue_backend"])
    def test_missing_app_of_the_database_queue_is_reported_with_the_line_to_add(self) -> None:
        (problem,) = check_queue()
        self.assertIn('add "mailqueue_backend.queues.database" to INSTALLED_APPS', problem.msg)
