"""What ``--parallel`` needs: each worker, and the child processes of its tests, have databases of their own.

Workers are forked on every Python: where they are spawned, Django keeps their copies of SQLite in memory, out of the
sight of child processes.
"""

from __future__ import annotations

import faulthandler
import multiprocessing
import os
import tempfile
from typing import Any
from unittest import TestCase, TestResult, TextTestResult

from django.db import connections
from django.test.runner import ParallelTestSuite, RemoteTestResult, RemoteTestRunner

from tests.leaks import LeakCheck

#: Seconds after which a test hangs; the longest takes two minutes on a slow machine.
HANGS_AFTER = 600


class HangTimer(TestResult):
    """Shows where each thread is when a test does not end, and ends the process."""

    def startTest(self, test: TestCase) -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        super().startTest(test)


class WorkerResult(HangTimer, LeakCheck, RemoteTestResult):
    """What a worker records of its tests."""


class WorkerRunner(RemoteTestRunner):
    """Runs the tests of one class in a worker."""

    resultclass = WorkerResult

    def run(self, test: Any) -> Any:
        try:
            return super().run(test)
        finally:
            faulthandler.cancel_dump_traceback_later()


class CollectedResult(TextTestResult):
    """What the workers have sent; stops the run when one of them has died, since its tests will never be sent."""

    workers: set[int | None] = set()
    stopped = False

    @property
    def shouldStop(self) -> bool:
        """Django asks ten times a second."""
        alive = {worker.pid for worker in multiprocessing.active_children()}
        self.workers = self.workers or alive
        self.stopped = self.stopped or not self.workers <= alive
        return self.stopped

    @shouldStop.setter
    def shouldStop(self, stop: bool) -> None:
        self.stopped = stop


def init_worker(*arguments: Any) -> None:
    """Switch to the worker's databases, and tell child processes where SQLite's is (tests/settings.py)."""
    ParallelTestSuite.init_worker(*arguments)
    os.environ["TEST_SQLITE"] = str(connections["default"].settings_dict["NAME"])
    os.environ["TEST_DIRECTORY"] = tempfile.mkdtemp(dir=os.environ["TEST_DIRECTORY"])


class ForkedTestSuite(ParallelTestSuite):
    """Tests that are distributed among workers."""

    init_worker = init_worker
    runner_class = WorkerRunner

    def run(self, result: Any) -> Any:
        multiprocessing.set_start_method("fork", force=True)
        super().run(result)
        # They have ended.
        result.workers = set()
        return result
