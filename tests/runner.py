"""Django's own test runner, which says at the end why tests were skipped, and ends a test that hangs."""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from typing import Any
from unittest import TestCase, TextTestResult

from django.test.runner import DiscoverRunner

#: Seconds after which a test hangs; the longest takes two minutes on a slow machine.
HANGS_AFTER = 600


class ImpatientResult(TextTestResult):
    """Shows where each thread is when a test does not end, and ends the run."""

    def startTest(self, test: TestCase) -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        super().startTest(test)

    def stopTestRun(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        super().stopTestRun()


class SkipReportingRunner(DiscoverRunner):
    """Prints each reason once, with the number of tests."""

    def get_resultclass(self) -> type[TextTestResult]:
        resultclass: type[TextTestResult] | None = super().get_resultclass()
        return resultclass or ImpatientResult

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        for reason, amount in sorted(Counter(reason for _, reason in result.skipped).items()):
            print(f"skipped: {amount} ({reason})", file=sys.stderr)
        failures: int = super().suite_result(suite, result, **kwargs)
        return failures
