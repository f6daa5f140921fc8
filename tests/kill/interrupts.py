"""Interrupts drains at one line after another: ``python -m tests.kill.interrupts INTERRUPT FAILURE WORKERS STRIDE``.

An exception of a signal handler, or of Celery's time limit, comes between any two lines of the main thread. Each drain
of three messages is interrupted at another line of the package, every STRIDE-th, until a drain has not that many
lines. What the server has accepted and what is in the queue must then be what was queued; another drain delivers the
rest. Prints, as JSON, how many lines were tried, and where something was wrong.
"""

from __future__ import annotations

import faulthandler
import gc
import json
import logging
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import django
from django.core.mail import EmailMessage
from django.core.management import call_command
from django.db import connection

import mailqueue_backend
from mailqueue_backend.delivery import drain, feed
from mailqueue_backend.delivery.limits import DrainOptions
from mailqueue_backend.envelope import loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.base import MessageQueue
from mailqueue_backend.queues.plain import PlainQueue

from ..smtp import ScriptedServer, always, delayed, good

PACKAGE = str(Path(mailqueue_backend.__file__).parent)
#: Seconds in which a drain that hangs is found out.
TIMEOUT = 30
#: Seconds in which the threads of a drain end.
PATIENCE = 2


class SoftTimeLimitExceeded(Exception):
    """What Celery raises in a task that takes too long."""


SoftTimeLimitExceeded.__module__ = "billiard.exceptions"


class Interrupter:
    """A trace function that interrupts at the n-th line of some files."""

    def __init__(self, lines: int, interrupt: Callable[[], None], where: tuple[str, ...]) -> None:
        self.left = lines
        #: The line at which it has interrupted; "": it has not.
        self.place = ""
        self._interrupt, self._where = interrupt, where

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(self._where):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                self.place = f"{frame.f_code.co_filename.removeprefix(PACKAGE)}:{frame.f_lineno}"
                self._interrupt()
        return self


class Interruption:
    """One way of interrupting a drain: by an exception that it must raise in turn."""

    where: tuple[str, ...] = (PACKAGE,)
    #: Whatever is interrupted ends with this exception.
    always_raised = True

    def __init__(self, error: type[BaseException]) -> None:
        self.error = error

    def interrupt(self) -> None:
        raise self.error

    def drain(self, backend: QueuedEmailBackend) -> None:
        backend.send_queued_messages()


class Signals(Interruption):
    """SIGTERM twice: a handler must not wait for a lock that the interrupted line holds."""

    where = (PACKAGE, threading.__file__)
    #: Before the handlers are there, and after the drain, the signals change nothing.
    always_raised = False

    def __init__(self) -> None:
        super().__init__(SystemExit)

    def interrupt(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    def drain(self, backend: QueuedEmailBackend) -> None:
        call_command("process_mail_queue", stdout=StringIO(), workers=backend.options.workers)


class ThreadedQueue(PlainQueue):
    """queue-front's dummy, which does know threads."""

    parallel = True  # type: ignore[assignment]


class Trial:
    """Drains three messages again and again, each time interrupted at a later line."""

    def __init__(self, interruption: Interruption, failure: str, workers: int) -> None:
        self.interruption = interruption
        self.failure = failure
        self.workers = workers
        #: What was wrong, and the lines at which a message was interrupted that the server had, so that it came twice.
        self.faults: list[str] = []
        self.twice: set[str] = set()
        self.server = ScriptedServer()
        self.server.__enter__()

    def run(self, stride: int) -> int:
        """Return how many drains were interrupted."""
        self.drain_once(0)
        number = 0
        while self.drain_once(1 + number * stride):
            number += 1
        return number

    def drain_once(self, line: int) -> bool:
        """Interrupt a drain at this line; return False when it has not that many."""
        self.server.stored.clear()
        subjects = [f"{line}-{letter}" for letter in "abc"]
        self.backend().send_messages([EmailMessage(subject, to=["to@example.com"]) for subject in subjects])
        interrupter = Interrupter(line, self.interruption.interrupt, self.interruption.where)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        raised = self.disturbed(interrupter)
        self.wait_for_server()
        first, left = self.server.copies, self.left()
        self.check_after(interrupter.place, raised)
        self.backend().send_queued_messages()
        faulthandler.cancel_dump_traceback_later()
        second, rest = self.server.copies, self.left()
        for subject in subjects:
            figures = (first[subject], left[subject], second[subject], rest[subject])
            if figures == (1, 1, 2, 0) and interrupter.place:
                self.twice.add(interrupter.place)
            elif figures not in {(1, 0, 1, 0), (0, 1, 1, 0)}:
                self.faults.append(f"{interrupter.place}: sent, left, sent and left after another drain: {figures}")
        return bool(interrupter.place)

    def disturbed(self, interrupter: Interrupter) -> type[BaseException] | None:
        """Drain with a server that fails, if it shall, and return the class of what is raised."""
        backend = self.backend()
        if self.failure == "450":
            self.server.script = always("RCPT", "450 later")
        elif self.workers > 1:  # so that several messages are in flight
            self.server.script = delayed("dot", 0.005)
        if self.failure == "down":
            backend.port = 9
        sys.settrace(interrupter)
        try:
            self.interruption.drain(backend)
        except BaseException as error:
            sys.settrace(None)
            return type(error)
        finally:
            sys.settrace(None)
            self.server.script = good
        return None

    def wait_for_server(self) -> None:
        """Wait until it has read all that was sent to it; a connection that was being made may live on as garbage."""
        listening, *serving = self.server._threads
        for thread in serving:
            while thread.ident is None:  # it has only just connected
                time.sleep(0.001)
            thread.join(0.05)
            if thread.is_alive():
                gc.collect()
                thread.join()
        self.server._threads[:] = [listening]

    def check_after(self, place: str, raised: type[BaseException] | None) -> None:
        """Look for what an interrupt may leave behind."""
        expected = (self.interruption.error, *(() if self.interruption.always_raised else (None,)))
        if place and raised not in expected:
            self.faults.append(f"{place}: raised {raised!r}")
        if reserved := self.queue().counts().reserved:
            self.faults.append(f"{place}: {reserved} messages are reserved")
        if connection.in_atomic_block or (connection.connection is not None and not connection.get_autocommit()):
            self.faults.append(f"{place}: a transaction is open")
            connection.close()
        end = time.monotonic() + PATIENCE
        while threads := [one for one in threading.enumerate() if one.name.startswith("mailqueue-")]:
            if time.monotonic() > end:
                self.faults.append(f"{place}: {[thread.name for thread in threads]} live on")
                for thread in threads:  # told once
                    thread.name = "leaked"
                break
            time.sleep(0.001)

    def backend(self) -> QueuedEmailBackend:
        backend = QueuedEmailBackend("127.0.0.1", self.server.port)
        if isinstance(backend.que, PlainQueue):
            backend.que = ThreadedQueue(backend.que.module_queue)
        backend.options = DrainOptions(workers=self.workers)
        return backend

    def queue(self) -> MessageQueue:
        return self.backend().que

    def left(self) -> Counter[str]:
        """Count the copies of each message in the queue, and in the dead queue."""
        payloads = self.queue().read_many(99)
        self.queue().write_many(*payloads)
        return Counter(loads(payload).email.subject for payload in payloads)


def main(interrupt: str, failure: str, workers: str, stride: str) -> None:
    sys.modules["billiard.exceptions"] = billiard = ModuleType("billiard.exceptions")
    billiard.SoftTimeLimitExceeded = SoftTimeLimitExceeded  # type: ignore[attr-defined]
    django.setup()
    logging.disable()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    drain.MESSAGES_PER_WORKER = 1
    if int(workers) > 1:
        # A further worker is worth its while at once.
        feed.FAST, feed.TICK = 0, 0.001
    interruptions = {
        "signals": Signals(),
        "interrupt": Interruption(KeyboardInterrupt),
        "time limit": Interruption(SoftTimeLimitExceeded),
    }
    trial = Trial(interruptions[interrupt], failure, int(workers))
    lines = trial.run(int(stride))
    print(json.dumps({"lines": lines, "faults": trial.faults, "twice": sorted(trial.twice)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
