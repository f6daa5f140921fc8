"""Settings are typed, and read at use."""

from __future__ import annotations

import math

from django.core.exceptions import ImproperlyConfigured
from django.test import SimpleTestCase, override_settings

from mailqueue_backend import settings as package_settings
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
                self.assertRaisesRegex(
                    ImproperlyConfigured, f"{name} in .* must be a (finite )?number, .*, not {wrong}"
                ),
            ):
                getattr(conf, f"MAIL_QUEUE_{name}")

    def test_settings_of_queue_front_may_be_text_that_is_a_number(self) -> None:
        for text, numbers in (("3", (3, 3.0)), ("", (None, None))):
            with override_settings(QUEUE_REDIS_DB=text, QUEUE_REDIS_TIMEOUT=text):
                self.assertEqual((conf.QUEUE_REDIS_DB, conf.QUEUE_REDIS_TIMEOUT), numbers)

    def test_unknown_constant_is_an_attribute_error(self) -> None:
        with self.assertRaises(AttributeError):
            _ = package_settings.QUEUE_SIZE
