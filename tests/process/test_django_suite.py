"""The backend tests of Django's own suite, run on the queued backend, with a drain before each look at the mailbox.

Django's wheel does not contain them: TEST_DJANGO_SOURCE names an unpacked sdist of the installed Django.
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
        def test_django_source_is_missing(self) -> None:
            raise SkipTest("TEST_DJANGO_SOURCE does not name Django's source")
