"""The checks of the settings: types, ranges, misspelt names, the directory of the discard log."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.checks import check_log, check_names, check_ranges, check_settings
from mailqueue_backend.settings import all_settings

NUMBERS = ("EXPIRE", "LEASE", "RETRY_DELAY", "WORKERS", "RATE", "LOG_FILE_MAXBYTES", "LOG_FILE_BACKUP")


def problems(check: Any, **settings: Any) -> list[tuple[str, str, str]]:
    """Return id (without the prefix), message and hint of what a check reports under these settings."""
    with override_settings(**settings):
        return [(each.id.removeprefix("mailqueue_backend."), each.msg, each.hint or "") for each in check()]


class TypeTests(SimpleTestCase):
    databases = {"default"}  # Django >= 6.1: with a tag, the check of the table asks it

    def test_the_defaults_are_right(self) -> None:
        self.assertEqual([*check_settings(), *check_ranges(), *check_names(), *check_log()], [])

    def test_each_wrong_setting_is_reported(self) -> None:
        found = problems(check_settings, MAIL_QUEUE_EXPIRE="soon", MAIL_QUEUE_NAME=3)
        self.assertEqual([id for id, *_ in found], ["E001"] * 2)

    @override_settings(MAIL_QUEUE_EXPIRE="soon")
    def test_the_checks_run_with_manage_py_check(self) -> None:
        for tag in ("compatibility", "mailqueue"):
            with self.subTest(tag), self.assertRaisesMessage(SystemCheckError, "mailqueue_backend.E001"):
                call_command("check", tags=[tag])

    def test_a_number_from_the_environment_needs_int(self) -> None:
        for name in [f"MAIL_QUEUE_{part}" for part in NUMBERS]:
            with self.subTest(name):
                ((id, message, hint),) = problems(check_settings, **{name: "86400"})
                self.assertEqual(id, "E001")
                self.assertRegex(message, f"^{name} in your settings must be int.*, not str.$")
                self.assertIn(f'{name} = int(os.environ["{name}"])', hint)

    def test_a_fraction_from_the_environment_needs_float(self) -> None:
        ((*_, hint),) = problems(check_settings, MAIL_QUEUE_RATE="0.5")
        self.assertIn('MAIL_QUEUE_RATE = float(os.environ["MAIL_QUEUE_RATE"])', hint)

    def test_a_boolean_from_the_environment_needs_a_comparison(self) -> None:
        ((id, _, hint),) = problems(check_settings, MAIL_QUEUE_RETRY_REJECTED="False")
        self.assertEqual(id, "E001")
        self.assertIn('MAIL_QUEUE_RETRY_REJECTED = os.environ["MAIL_QUEUE_RETRY_REJECTED"] == "True"', hint)

    def test_a_boolean_is_no_number(self) -> None:
        for name in (*[f"MAIL_QUEUE_{part}" for part in NUMBERS], "QUEUE_REDIS_DB", "QUEUE_REDIS_TIMEOUT"):
            with self.subTest(name):
                ((id, message, hint),) = problems(check_settings, **{name: True})
                self.assertEqual((id, message.partition(", not ")[2]), ("E001", "bool."))
                self.assertIn("The default is ", hint)

    def test_a_redis_database_must_be_a_number(self) -> None:
        ((id, message, _),) = problems(check_settings, QUEUE_REDIS_DB="first")
        self.assertEqual((id, message), ("E001", "QUEUE_REDIS_DB in your settings must be int or None, not str."))


class RangeTests(SimpleTestCase):
    def test_every_number_has_a_range(self) -> None:
        numbers = [setting.name for setting in all_settings() if {int, float} & {*setting.kinds} - {bool}]
        for name in numbers:
            if name == "EMAIL_USE_LOCALTIME":  # Django's own, a boolean
                continue
            with self.subTest(name):
                ((id, message, _),) = problems(check_ranges, **{name: -1})
                self.assertEqual(id, "E005")
                self.assertRegex(message, f"^{name} in your settings must be a (finite )?number, .*0.*, not -1.$")

    def test_numbers_that_are_not_finite_are_reported(self) -> None:
        for value in (float("nan"), float("inf"), float("-inf")):
            with self.subTest(value):
                ((id, message, _),) = problems(check_ranges, MAIL_QUEUE_LEASE=value)
                self.assertEqual((id, message.endswith(f"not {value}.")), ("E005", True))

    def test_mail_may_never_expire(self) -> None:
        self.assertEqual(problems(check_ranges, MAIL_QUEUE_EXPIRE=float("inf")), [])

    def test_0_is_reported_where_the_number_must_be_positive(self) -> None:
        for name, default in (("MAIL_QUEUE_LEASE", 600), ("MAIL_QUEUE_WORKERS", 8), ("MAIL_QUEUE_HISTORY_DAYS", 30)):
            with self.subTest(name):
                ((id, message, hint),) = problems(check_ranges, **{name: 0})
                self.assertEqual((id, hint), ("E005", f"The default is {default}."))
                self.assertIn("greater than 0, not 0", message)

    def test_0_is_right_elsewhere(self) -> None:
        names = [f"MAIL_QUEUE_{part}" for part in NUMBERS if part not in ("LEASE", "WORKERS")]
        self.assertEqual(problems(check_ranges, **dict.fromkeys(names, 0)), [])

    def test_a_wrong_type_is_not_reported_twice(self) -> None:
        self.assertEqual(problems(check_ranges, MAIL_QUEUE_EXPIRE="-1", MAIL_QUEUE_LEASE=False), [])


class NameTests(SimpleTestCase):
    def test_a_misspelt_name_gets_a_suggestion(self) -> None:
        for name, meant in (
            ("MAIL_QUEUE_EXPIRES", "MAIL_QUEUE_EXPIRE"),
            ("MAIL_QUEUE_LOG_FILE", "MAIL_QUEUE_LOG_FILENAME"),
            ("MAIL_QUEUE_REDIS_URI", "MAIL_QUEUE_REDIS_URL"),
            ("MAILQUEUE_EXPIRE", "MAIL_QUEUE_EXPIRE"),
            ("MAIL_QEUE_LEASE", "MAIL_QUEUE_LEASE"),
        ):
            with self.subTest(name):
                ((id, message, hint),) = problems(check_names, **{name: 1})
                self.assertEqual((id, hint), ("W004", f"Did you mean {meant}?"))
                self.assertEqual(message, f"{name} in your settings is not a setting of the mail queue.")

    def test_an_unknown_name_without_a_similar_one_is_reported(self) -> None:
        ((id, message, hint),) = problems(check_names, MAIL_QUEUE_XYZZY_PLUGH=1)
        self.assertEqual((id, message.partition(" ")[0]), ("W004", "MAIL_QUEUE_XYZZY_PLUGH"))
        self.assertIn("documentation", hint)

    def test_names_of_others_are_not_reported(self) -> None:
        others = (
            "EMAIL_QUEUE_NAME",
            "MAIL_FROM",
            "MAILER_EMAIL_BACKEND",
            "MAILQUEUE_LIMIT",
            "MAIL_QUEUE",
            "QUEUE_NAME",
        )
        self.assertEqual(problems(check_names, **dict.fromkeys(others, 1)), [])


class LogTests(SimpleTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        self.directory.chmod(0o755)

    def test_a_missing_directory_is_reported(self) -> None:
        path = self.directory / "nowhere" / "discards.log"
        ((id, message, hint),) = problems(check_log, MAIL_QUEUE_LOG_FILENAME=path)
        self.assertEqual(id, "W005")
        self.assertEqual(message, f"MAIL_QUEUE_LOG_FILENAME: the directory {path.parent} does not exist.")
        self.assertIn("Only process_mail_queue writes the log", hint)

    def test_a_directory_without_write_access_is_reported(self) -> None:
        self.directory.chmod(0o555)
        with without_root():
            ((id, message, _),) = problems(check_log, MAIL_QUEUE_LOG_FILENAME=str(self.directory / "discards.log"))
        self.assertEqual((id, message.endswith(f"cannot write to the directory {self.directory}.")), ("W005", True))

    def test_a_log_without_write_access_is_reported(self) -> None:
        path = self.directory / "discards.log"
        path.touch(0o444)
        self.directory.chmod(0o777)
        with without_root():
            ((id, message, _),) = problems(check_log, MAIL_QUEUE_LOG_FILENAME=path)
        self.assertEqual((id, message.endswith(f"cannot write to the file {path}.")), ("W005", True))

    def test_a_directory_in_place_of_the_log_is_reported(self) -> None:
        ((id, message, _),) = problems(check_log, MAIL_QUEUE_LOG_FILENAME=self.directory)
        self.assertEqual((id, message.endswith(f"{self.directory} is a directory.")), ("W005", True))

    def test_a_wrong_type_is_reported_as_such_alone(self) -> None:
        self.assertEqual(problems(check_log, MAIL_QUEUE_LOG_FILENAME=3), [])


@contextmanager
def without_root() -> Iterator[None]:
    """Give up root's right to write everywhere, if this process has it."""
    if os.getuid():
        yield
        return
    os.setresuid(65534, 65534, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
