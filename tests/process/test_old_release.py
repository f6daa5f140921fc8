"""This package beside the real 0.1.2: each drains what the other has queued, and 0.1.2's tests pass on this package.

TEST_OLD_RELEASE names a directory made by
``pip install --no-deps --target DIRECTORY django-mailqueue-backend==0.1.2``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from unittest import skipUnless

from django.test import TestCase

from tests import TOP, services
from tests.cases import BACKEND
from tests.smtp.inbox import SMTPServerMixin

OLD_RELEASE = os.environ.get("TEST_OLD_RELEASE", "")
NAME = f"{services.PREFIX}_OLD"

#: The settings of a site of 0.1.2; both releases use them unchanged.
SITE = f"""
import os
SECRET_KEY = "only for the tests"
INSTALLED_APPS = ["mailqueue_backend"]
EMAIL_BACKEND = "{BACKEND}"
EMAIL_HOST, EMAIL_PORT = "127.0.0.1", int(os.environ["TEST_EMAIL_PORT"])
QUEUE_BACKEND = "redisd"
QUEUE_REDIS_CONNECTION = "{services.REDIS}"
MAIL_QUEUE_NAME = "{NAME}"
"""

DUMMY_QUEUE = """
QUEUE_BACKEND = "dummy"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}}
"""

QUEUE_HTML_MAIL = """
import django
django.setup()
from django.core.mail import EmailMultiAlternatives
import mailqueue_backend
email = EmailMultiAlternatives(mailqueue_backend.__version__, "text", "from@example.com", ["to@example.com"])
email.attach_alternative("<p>html</p>", "text/html")
email.attach("a.bin", bytes(range(256)), "application/octet-stream")
assert email.send() == 1
"""


@skipUnless(OLD_RELEASE, "TEST_OLD_RELEASE does not name a directory with 0.1.2")
class OldReleaseTests(SMTPServerMixin, TestCase):
    def setUp(self) -> None:
        super().setUp()
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.directory = Path(directory.name)
        Path(self.directory, "old_site.py").write_text(SITE)

    def python(self, *arguments: str, old: bool) -> str:
        """Run Python with the site's settings, and with 0.1.2 or this package."""
        package = OLD_RELEASE if old else str(TOP)
        environ = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([package, str(self.directory)]),
            "DJANGO_SETTINGS_MODULE": "old_site",
            "TEST_EMAIL_PORT": str(self.server.port),
        }
        # 0.1.2 opens its log in the working directory, and leaves it open until exit.
        result = subprocess.run(
            [sys.executable, "-W", "ignore", *arguments],
            cwd=self.directory,
            env=environ,
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def assertArrives(self, *subjects: str) -> None:
        self.assertEqual(self.inbox.subjects, list(subjects))
        for received in self.inbox.messages:
            html = received.get_body(("html",))
            assert html is not None
            self.assertEqual(html.get_content().strip(), "<p>html</p>")
            self.assertEqual(next(received.iter_attachments()).get_content(), bytes(range(256)))

    @services.needs("Redis", services.redis_answers())
    def test_each_drains_what_the_other_queued(self) -> None:
        for writer, reader in ((True, False), (False, True), (True, True), (False, False)):
            with self.subTest(old_writer=writer, old_reader=reader):
                self.inbox.received.clear()
                self.python("-c", QUEUE_HTML_MAIL, old=writer)
                output = self.python("-m", "django", "process_mail_queue", old=reader)
                self.assertIn("1 message sent and 0 messages discarded out of 1", output)
                self.assertArrives(
                    "0.1.2"
                    if writer
                    else self.python("-c", "import mailqueue_backend as m; print(m.__version__)", old=False).strip()
                )

    def test_the_tests_of_the_old_release_pass(self) -> None:
        shutil.copy(Path(OLD_RELEASE, "mailqueue_backend", "tests.py"), self.directory / "old_tests.py")
        with Path(self.directory, "old_site.py").open("a") as site:
            site.write(DUMMY_QUEUE)
        self.python("-m", "django", "test", "old_tests", old=False)
