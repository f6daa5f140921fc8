"""Thousands of damaged payloads, opened in a process with limited memory."""

from __future__ import annotations

import os
import subprocess
import sys
from unittest import skipUnless

from django.test import SimpleTestCase, tag

from tests import TOP


class FuzzTests(SimpleTestCase):
    @tag("slow")
    @skipUnless(sys.platform == "linux", "only Linux limits the memory of a process")
    def test_damaged_payload_is_a_message_of_plain_data_or_unreadable(self) -> None:
        result = subprocess.run(
            [sys.executable, "-W", "error", "-m", "tests.unit.fuzz", "20000"],
            cwd=TOP,
            # Not under coverage, which would exceed the time limit of a payload.
            env={name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")},
            capture_output=True,
            text=True,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stdout[-2000:] + result.stderr[-2000:])
