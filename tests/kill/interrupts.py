"""Interrupts drains at one line after another: ``python -m tests.kill.interrupts INTERRUPT FAILURE WORKERS STRIDE``.

A signal handler or Celery's time limit can raise an exception between any two lines of the main thread. Each drain of
three messages is interrupted at a later line of the package, every STRIDE-th, until a drain ends before that line.
Together, the server and the queue must then hold the messages that were queued; another drain delivers the rest.
Prints, as JSON, how many lines were tried and which of them failed.
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
#: Seconds after which a drain counts as hung.
TIMEOUT = 30
#: Seconds that the threads of a drain may take to end.
PATIENCE = 2


class SoftTimeLimitExceeded(Exception):
    """The exception that Celery raises in a task that takes too long."""


SoftTimeLimitExceeded.__module__ = "billiard.exceptions"


class Interrupter:
    """A trace function that calls ``interrupt`` at the n-th line executed in the files of ``where``."""

    def __init__(self, lines: int, interrupt: Callable[[], None], where: tuple[str, ...]) -> None:
        self.left = lines
        #: The interrupted line, as file:number; "": none yet.
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
    """One way of interrupting a drain: raise an exception, which the drain must pass on."""

    where: tuple[str, ...] = (PACKAGE,)
    #: Whether an interrupt at any line must make the drain raise this exception.
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
    #: Before the handlers are installed and after the drain, the signals have no effect.
    always_raised = False

    def __init__(self) -> None:
        super().__init__(SystemExit)

    def interrupt(self) -> None:
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)

    def drain(self, backend: QueuedEmailBackend) -> None:
        call_command("process_mail_queue", stdout=StringIO(), workers=backend.options.workers)


class ThreadedQueue(PlainQueue):
    """queue-front's dummy, declared safe for threads."""

    parallel = True  # type: ignore[assignment]


class Trial:
    """Drain three messages repeatedly, each time interrupted at a later line."""

    def __init__(self, interruption: Interruption, failure: str, workers: int) -> None:
        self.interruption = interruption
        self.failure = failure
        self.workers = workers
        #: Descriptions of what went wrong.
        self.faults: list[str] = []
        #: Lines at which an interrupt hid that the server had accepted a message, which was then sent again.
        self.twice: set[str] = set()
        self.server = ScriptedServer()
        self.server.__enter__()

    def run(self, stride: int) -> int:
        """Interrupt drains until one ends before its line; return how many were interrupted."""
        self.drain_once(0)
        number = 0
        while self.drain_once(1 + number * stride):
            number += 1
        return number

    def drain_once(self, line: int) -> bool:
        """Interrupt a drain at this line; return False if it ended before."""
        self.server.stored.clear()
        subjects = [f"{line}-{letter}" for letter in "abc"]
        self.backend().send_messages([EmailMessage(subject, to=["to@example.com"]) for subject in subjects])
        interrupter = Interrupter(line, self.interruption.interrupt, self.interruption.where)
        faulthandler.dump_traceback_later(TIMEOUT, exit=True)
        raised = self.interrupted_drain(interrupter)
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

    def interrupted_drain(self, interrupter: Interrupter) -> type[BaseException] | None:
        """Drain under the interrupter and with this trial's failure; return the class of the exception, if any."""
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
        """Wait until the server has read everything; collect connections that an interrupt left open as garbage."""
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
        """Record a fault for a wrong exception, and for each reservation, transaction or thread left behind."""
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
                self.faults.append(f"{place}: {[thread.name for thread in threads]} are still running")
                for thread in threads:  # report each thread once
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
        # Start the second worker at once.
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
