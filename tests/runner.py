"""Django's own test runner, which says at the end why tests were skipped."""

from __future__ import annotations

import sys
from collections import Counter
from typing import Any

from django.test.runner import DiscoverRunner


class SkipReportingRunner(DiscoverRunner):
    """Prints each reason once, with the number of tests."""

    def suite_result(self, suite: Any, result: Any, **kwargs: Any) -> int:
        for reason, amount in sorted(Counter(reason for _, reason in result.skipped).items()):
            print(f"skipped: {amount} ({reason})", file=sys.stderr)
        failures: int = super().suite_result(suite, result, **kwargs)
        return failures
