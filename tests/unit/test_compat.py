"""Compatibility with 0.1.2: names, arguments, settings and payload."""

from __future__ import annotations

import inspect
import pickle
from datetime import datetime, timedelta
from importlib import metadata
from typing import Any
from unittest import skipUnless

from django.core.mail.backends.smtp import EmailBackend
from django.test import SimpleTestCase, override_settings

from mailqueue_backend import settings as package_settings
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from tests.cases import BACKEND, QueueTestCase, enqueue, message


def _distribution() -> metadata.Distribution | None:
    try:
        return metadata.distribution("django-mailqueue-backend")
    except metadata.PackageNotFoundError:
        return None


class DistributionTests(SimpleTestCase):
    @skipUnless(_distribution(), "django-mailqueue-backend runs from its source, it is not installed")
    def test_requires_only_django_and_queue_front(self) -> None:
        requirements = [line for line in metadata.requires("django-mailqueue-backend") or () if "extra ==" not in line]
        self.assertEqual(sorted(requirements), ["Django>=4.2", "queue-front>=0.7.2"])


class BackendClassTests(QueueTestCase):
    def test_takes_the_arguments_of_the_old_release_in_their_order(self) -> None:
        names = list(inspect.signature(QueuedEmailBackend).parameters)
        self.assertEqual(names, ["host", "port", "username", "password", "use_tls", "fail_silently", "test", "kwargs"])

    def test_is_an_smtp_backend(self) -> None:
        backend = QueuedEmailBackend("host", 26, "me", "secret", False, True, True, use_ssl=True, timeout=3)
        self.assertIsInstance(backend, EmailBackend)
        self.assertEqual((backend.host, backend.port, backend.username, backend.password), ("host", 26, "me", "secret"))
        self.assertEqual((backend.use_tls, backend.use_ssl, backend.timeout), (False, True, 3))
        self.assertTrue(backend.fail_silently)

    def test_outcomes_are_the_published_tuples(self) -> None:
        self.assertEqual(QueuedEmailBackend.SENT, (True, None))
        self.assertEqual(QueuedEmailBackend.NOQUEUE, (False, False))
        self.assertEqual(QueuedEmailBackend.DOQUEUE, (False, True))

    def test_que_is_the_queue(self) -> None:
        que = QueuedEmailBackend().que
        enqueue("Hello")
        self.assertEqual(len(que), 1)
        payload = que.read()
        self.assertIsInstance(payload, bytes)
        self.assertTrue(que.write(payload))

    def test_que_can_be_set_by_a_subclass(self) -> None:
        class OtherQueue(QueuedEmailBackend):
            def __init__(self, *args: Any, **kwargs: Any) -> None:
                super().__init__(*args, **kwargs)
                self.que = open_queue("OTHER")

        OtherQueue().send_messages([message()])
        self.assertEqual((len(open_queue("OTHER")), len(self.queue)), (1, 0))


class SettingsTests(SimpleTestCase):
    DEFAULTS = {
        "QUEUE_NAME": "MAIL_QUEUE",
        "QUEUE_EXPIRE": 86400,
        "LOG_FILENAME": "smtp.mail_queue.mail_queue_fail.log",
        "LOG_FILE_MAXBYTES": 5242880,
        "LOG_FILE_BACKUP": 5,
    }

    def test_constants_have_the_old_defaults(self) -> None:
        from django.conf import settings

        with override_settings():
            del settings.MAIL_QUEUE_LOG_FILENAME
            for name, value in self.DEFAULTS.items():
                with self.subTest(name=name):
                    self.assertEqual(getattr(package_settings, name), value)

    def test_constants_follow_the_settings(self) -> None:
        for name, default in self.DEFAULTS.items():
            value = default * 2
            with (
                self.subTest(name=name),
                override_settings(
                    **{f"MAIL_{name}" if name == "QUEUE_NAME" else f"MAIL_QUEUE_{name.removeprefix('QUEUE_')}": value}
                ),
            ):
                self.assertEqual(getattr(package_settings, name), value)


class PayloadTests(QueueTestCase):
    def test_is_the_pickled_dict_that_the_old_release_reads(self) -> None:
        enqueue("Hello", campaign="spring")
        payload = self.queue.read()
        assert payload is not None
        opened = pickle.loads(payload)
        self.assertEqual(payload[:2], b"\x80\x04")
        self.assertEqual(opened["email"].subject, "Hello")
        self.assertIsNone(opened["created"].tzinfo)
        self.assertLess(abs(datetime.now() - opened["created"]), timedelta(seconds=60))
        self.assertEqual(opened["campaign"], "spring")

    def test_command_is_found_by_its_old_path(self) -> None:
        self.assertEqual(BACKEND, f"{QueuedEmailBackend.__module__}.{QueuedEmailBackend.__qualname__}")
