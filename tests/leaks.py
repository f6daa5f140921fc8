"""Fails a test that leaves a socket or a file open, where Python itself can only print "Exception ignored"."""

from __future__ import annotations

import ssl
import sys
from typing import Any
from unittest import TestCase, TestResult

#: What has been found since a test was last failed for it.
leaks: list[str] = []


def note(unraisable: Any) -> None:
    """Print what cannot be raised, as Python does; note a ResourceWarning, which is an error under ``-W error``."""
    sys.__unraisablehook__(unraisable)
    # Python < 3.13: ssl does not close the socket that it wraps when the connection has just been reset.
    of_ssl = sys.version_info < (3, 13) and isinstance(unraisable.object, ssl.SSLSocket)
    if isinstance(unraisable.exc_value, ResourceWarning) and not of_ssl:
        leaks.append(str(unraisable.exc_value))


class LeakCheck(TestResult):
    """Reports what was left open as an error of the test after which the garbage collector found it."""

    def startTest(self, test: TestCase) -> None:
        sys.unraisablehook = note
        super().startTest(test)

    def stopTest(self, test: TestCase) -> None:
        if leaks:
            error = ResourceWarning(f"Left open by this test or an earlier one: {', '.join(leaks)}")
            leaks.clear()
            self.addError(test, (ResourceWarning, error, None))
        super().stopTest(test)
