"""Django's test runner, extended to report why tests were skipped and to abort a test that hangs."""

from __future__ import annotations

import faulthandler
import sys
from collections import Counter
from typing import Any
from unittest import TextTestResult

from django.test.runner import DiscoverRunner

from tests.leaks import LeakCheck
from tests.parallel import CollectedResult, ForkedTestSuite, HangTimer


class TimedResult(HangTimer, LeakCheck, TextTestResult):
    """The printed result of a run without workers."""

    def stopTestRun(self) -> None:
        faulthandler.cancel_dump_traceback_later()
        super().stopTestRun()


class SkipReportingRunner(DiscoverRunner):
    """Print each reason for skipping once, with the number of tests."""

    parallel_test_suite = ForkedTestSuite

    def get_resultclass(self) -> type[TextTestResult]:
        resultclass: type[TextTestResult] | None = super().get_resultclass()
        return resultclass or (CollectedResult if self.parallel > 1 else TimedResult)

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        for reason, amount in sorted(Counter(reason for _, reason in result.skipped).items()):
            print(f"skipped: {amount} ({reason})", file=sys.stderr)
        if result.shouldStop:
            print("stopped: some tests were not run", file=sys.stderr)
        failures: int = super().suite_result(suite, result, **kwargs)
        return failures or int(result.shouldStop)
