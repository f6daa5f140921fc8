"""The discard log: each record is one line, also when several processes write."""

from __future__ import annotations

import errno
import os
import re
import subprocess
import sys
import tempfile
from io import StringIO
from pathlib import Path
from typing import Any
from unittest import mock

from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.discards import LOGGER, Discard, attach_handler, log_discard
from mailqueue_backend.errors import DiscardLogError

ID = "0123456789ab"
DISCARD = Discard("Message Expired", "then", "Hello", "from@example.com", ["to@example.com"], "no", ID)


class LineTests(SimpleTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.log = Path(directory.name, "discards.log")

    def write(self, subject: str = "Hello", **settings: Any) -> bytes:
        with override_settings(MAIL_QUEUE_LOG_FILENAME=self.log, **settings):
            log_discard(DISCARD._replace(subject=subject))
        return self.log.read_bytes()

    def test_line_ends_and_control_characters_are_escaped(self) -> None:
        hostile = "a\nb\rc\u2028d\u2029e\x0bf\x85g\x1bh\x00i\tj"
        written = self.write(hostile).decode()
        self.assertEqual(len(written.splitlines()), 1)
        self.assertIn(r"Subject: a\nb\rc\u2028d\u2029e\x0bf\x85g\x1bh\x00i\tj, From", written)

    def test_is_utf_8_and_escapes_what_cannot_be_encoded(self) -> None:
        written = self.write("Grüße \udcff")
        self.assertIn("Grüße \\udcff".encode(), written)

    def test_is_utf_8_whatever_the_locale(self) -> None:
        code = (
            "from django.conf import settings; import sys; settings.configure(MAIL_QUEUE_LOG_FILENAME=sys.argv[1]);"
            "from mailqueue_backend.discards import *; attach_handler();"
            "log_discard(Discard('Message Expired', 1, 'Gr\\xfc\\xdfe', 'a', ['b'], 'no', 'id'))"
        )
        environ = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        subprocess.run([sys.executable, "-c", code, str(self.log)], env=environ, check=True, stderr=subprocess.DEVNULL)
        self.assertIn("Grüße", self.log.read_text(encoding="utf-8"))

    def test_file_is_opened_at_the_first_discard(self) -> None:
        with override_settings(MAIL_QUEUE_LOG_FILENAME=self.log):
            attach_handler()
            self.assertFalse(self.log.exists())

    def test_logger_has_one_handler_however_often_it_is_attached(self) -> None:
        before = list(LOGGER.handlers)
        self.assertIs(attach_handler(), attach_handler())
        self.assertEqual(LOGGER.handlers, before)

    def test_follows_the_settings(self) -> None:
        self.write("one")
        first, self.log = self.log, self.log.with_name("other.log")
        self.write("two")
        self.assertIn("one", first.read_text())
        self.assertNotIn("two", first.read_text())
        self.assertIn("two", self.log.read_text())

    def test_file_that_cannot_be_written_is_an_error_and_reported_on_stderr(self) -> None:
        self.log = self.log / "no" / "such" / "directory"
        with mock.patch("sys.stderr", new_callable=StringIO) as stderr, self.assertRaises(DiscardLogError) as caught:
            self.write()
        self.assertIn("directory", str(caught.exception))
        self.assertIn("FileNotFoundError", stderr.getvalue())

    def test_wrong_setting_is_an_error(self) -> None:
        with mock.patch("sys.stderr", new_callable=StringIO), self.assertRaises(DiscardLogError):
            self.write(MAIL_QUEUE_LOG_FILE_MAXBYTES="much")


#: Writes a line, one that fits only in part, and, once there is room again, a third one.
FULL_DISK = """
import resource, sys
from django.conf import settings
from tests.unit.test_discards import *
settings.configure(MAIL_QUEUE_LOG_FILENAME=sys.argv[1])
log_discard(DISCARD._replace(subject="first"))
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1]) + 40, resource.RLIM_INFINITY))
try:
    log_discard(DISCARD._replace(subject="second"))
except DiscardLogError as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log_discard(DISCARD._replace(subject="third"))
"""


class FullDiskTests(SimpleTestCase):
    def test_line_that_does_not_fit_is_removed_and_never_written_later(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory, "discards.log")
            command = [sys.executable, "-c", FULL_DISK, str(log)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            lines = log.read_text().splitlines()
        self.assertIn("only 40 of the line's", done.stdout)
        self.assertEqual([re.findall("Subject: (\\w+)", line) for line in lines], [["first"], ["third"]])

    def test_log_that_is_not_a_file(self) -> None:
        reader, writer = os.pipe()
        with open(reader, "rb") as pipe, override_settings(MAIL_QUEUE_LOG_FILENAME=f"/dev/fd/{writer}"):
            with mock.patch("builtins.open", side_effect=_no_lock_file(open)):
                log_discard(DISCARD)
            os.close(writer)
            attach_handler()._close_stream()
            self.assertIn(b"Message Expired", pipe.read())


#: Discards 5,000 messages with hostile subjects; the log must contain one line for each.
WRITER = """
import sys
from django.conf import settings
settings.configure(
    MAIL_QUEUE_LOG_FILENAME=sys.argv[1], MAIL_QUEUE_LOG_FILE_MAXBYTES=100_000, MAIL_QUEUE_LOG_FILE_BACKUP=500
)
from mailqueue_backend.discards import Discard, attach_handler, log_discard
attach_handler()
for number in range(5000):
    subject = f"\\n<{sys.argv[2]}:{number}>\\r\\u2028 Grüße"
    log_discard(Discard("Message Expired", "then", subject, "a@example.com", ["b@example.com"], "no", "id"))
"""


class SeveralProcessesTests(SimpleTestCase):
    @tag("slow")
    def test_rotation_by_eight_processes_loses_and_duplicates_no_line(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory, "discards.log")
            command = [sys.executable, "-c", WRITER, str(log)]
            writers = [subprocess.Popen([*command, str(writer)], stderr=subprocess.PIPE) for writer in range(8)]
            errors = [writer.communicate(timeout=240)[1].decode() for writer in writers]
            self.assertEqual([writer.returncode for writer in writers], [0] * 8, errors)
            files = sorted(set(Path(directory).iterdir()) - {Path(f"{log}.lock")})
            lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
        found = sorted(re.findall(r"<(\d):(\d+)>", "\n".join(lines)))
        self.assertEqual(len(lines), 40_000)
        self.assertEqual(found, sorted((str(writer), str(number)) for writer in range(8) for number in range(5000)))
        self.assertGreater(len(files), 20)

    def test_existing_log_is_written_in_a_directory_without_write_access(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            log = Path(directory, "discards.log")
            with (
                override_settings(MAIL_QUEUE_LOG_FILENAME=log),
                mock.patch("builtins.open", side_effect=_no_lock_file(open)),
            ):
                log_discard(DISCARD)
            self.assertIn("Hello", log.read_text())


def _no_lock_file(real_open: Any) -> Any:
    def opened(name: Any, *args: Any, **kwargs: Any) -> Any:
        if str(name).endswith(".lock"):
            raise PermissionError(errno.EACCES, name)
        return real_open(name, *args, **kwargs)

    return opened
