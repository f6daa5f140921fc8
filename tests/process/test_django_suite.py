"""The backend tests of Django's own suite, with our queue in the middle and a drain before each look at the mailbox.

They come with Django's source, not with its wheel: TEST_DJANGO_SOURCE names an unpacked sdist of the Django that
is installed.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any
from unittest import SkipTest

from django.test import TestCase

from tests.cases import BACKEND, process_mail_queue

SOURCE = os.environ.get("TEST_DJANGO_SOURCE")

if SOURCE and not TYPE_CHECKING:
    sys.path.append(os.path.join(SOURCE, "tests"))
    from mail import tests as django_tests

    class QueuedBackendTests(django_tests.BaseEmailBackendTests, django_tests.SMTPBackendTestsBase, TestCase):
        email_backend = BACKEND

        def setUp(self) -> None:
            super().setUp()
            self.flush_mailbox()
            self.addCleanup(self.flush_mailbox)

        def flush_mailbox(self) -> None:
            self.smtp_handler.flush_mailbox()

        def get_mailbox_content(self) -> Any:
            process_mail_queue()
            return self.smtp_handler.mailbox

else:

    class QueuedBackendTests(TestCase):
        def test_runs_with_django_s_source(self) -> None:
            raise SkipTest("TEST_DJANGO_SOURCE does not name Django's source")
