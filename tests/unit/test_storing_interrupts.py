"""Celery's soft time limit ends send() wherever a site's code is called; it is not taken for an error of that code."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage

from mailqueue_backend.mail.smtp import QueuedEmailBackend
from tests.cases import QueueTestCase, message


class TimeIsUp(Exception):
    pass


class Raising:
    """Raises when it is pickled."""

    def __reduce__(self) -> Any:
        raise TimeIsUp


class RaisingLater:
    """Raises when it is pickled for the third time: to find out why it cannot be pickled."""

    tries = 0

    def __reduce__(self) -> Any:
        self.tries += 1
        raise TimeIsUp if self.tries > 2 else TypeError


class RaisingHeaders(dict):  # type: ignore[type-arg]
    def __reduce__(self) -> Any:
        raise TimeIsUp


class RaisingMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        raise TimeIsUp


class RaisingBackend(QueuedEmailBackend):
    def __init__(self, **kwargs: Any) -> None:
        if not kwargs:
            raise TimeIsUp
        super().__init__(**kwargs)


class InterruptTests(QueueTestCase):
    def setUp(self) -> None:
        super().setUp()
        billiard = ModuleType("billiard.exceptions")
        billiard.SoftTimeLimitExceeded = TimeIsUp  # type: ignore[attr-defined]
        modules = mock.patch.dict(sys.modules, {"billiard.exceptions": billiard})
        modules.start()
        self.addCleanup(modules.stop)

    def assertInterrupted(self, original: EmailMessage, backend: QueuedEmailBackend | None = None) -> None:
        with self.assertRaises(TimeIsUp):
            (backend or QueuedEmailBackend()).send_messages([original])
        self.assertEqual(len(self.queue), 0)

    def test_while_it_is_pickled(self) -> None:
        for attribute in (Raising(), RaisingLater()):
            with self.subTest(attribute=attribute):
                original = message()
                original.attribute = attribute  # type: ignore[attr-defined]
                self.assertInterrupted(original)

    def test_while_its_headers_are_copied(self) -> None:
        self.assertInterrupted(message(headers=RaisingHeaders({"X-Test": "x"})))

    def test_while_it_is_rendered(self) -> None:
        self.assertInterrupted(RaisingMessage("Sub\nject", "Body", "from@example.com", ["to@example.com"]))

    def test_while_an_address_is_prepared(self) -> None:
        with mock.patch("mailqueue_backend.mail.validation.prepare_address", side_effect=TimeIsUp):
            self.assertInterrupted(message(to=["Jörg <joerg@example.com>"]))

    def test_while_ignored_arguments_are_found(self) -> None:
        self.assertInterrupted(message(), RaisingBackend(host="other.example.com"))
