"""Support for ``--parallel``: each worker has separate databases, which the child processes of its tests share.

Workers are always forked. For spawned workers, Django keeps the copies of an SQLite database in memory, where child
processes cannot see them.
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

#: Seconds after which a test counts as hung; the longest takes two minutes on a slow machine.
HANGS_AFTER = 600


class HangTimer(TestResult):
    """Dump the stack of each thread and exit when a test hangs."""

    def startTest(self, test: TestCase) -> None:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
        super().startTest(test)


class WorkerResult(HangTimer, LeakCheck, RemoteTestResult):
    """The events that a worker records."""


class WorkerRunner(RemoteTestRunner):
    """Run the tests of one class in a worker."""

    resultclass = WorkerResult

    def run(self, test: Any) -> Any:
        try:
            return super().run(test)
        finally:
            faulthandler.cancel_dump_traceback_later()


class CollectedResult(TextTestResult):
    """The results that the workers have sent. Stop the run when a worker dies, since its results will never arrive."""

    workers: set[int | None] = set()
    stopped = False

    @property
    def shouldStop(self) -> bool:
        """Return whether a worker has died; Django asks ten times a second."""
        alive = {worker.pid for worker in multiprocessing.active_children()}
        self.workers = self.workers or alive
        self.stopped = self.stopped or not self.workers <= alive
        return self.stopped

    @shouldStop.setter
    def shouldStop(self, stop: bool) -> None:
        self.stopped = stop


def init_worker(*arguments: Any) -> None:
    """Switch to the worker's databases, and pass the path of SQLite's to child processes (tests/settings.py)."""
    ParallelTestSuite.init_worker(*arguments)
    os.environ["TEST_SQLITE"] = str(connections["default"].settings_dict["NAME"])
    os.environ["TEST_DIRECTORY"] = tempfile.mkdtemp(dir=os.environ["TEST_DIRECTORY"])


class ForkedTestSuite(ParallelTestSuite):
    """Distribute the tests among forked workers."""

    init_worker = init_worker
    runner_class = WorkerRunner

    def run(self, result: Any) -> Any:
        multiprocessing.set_start_method("fork", force=True)
        super().run(result)
        # The workers have ended, so that none of them counts as dead.
        result.workers = set()
        return result
