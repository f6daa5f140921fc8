"""One run: queue messages, drain them in processes that are killed, drain the rest, draw up the ledger."""

from __future__ import annotations

import random
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Lock, Timer

from mailqueue_backend.queues.base import MessageQueue
from tests.kill.children import DRAIN, Site
from tests.kill.ledger import Ledger, draw_up
from tests.smtp import Action, ScriptedServer, Stored

#: Seconds; long enough for a message on a slow machine, short enough to wait for.
LEASE = 3
#: Seconds without progress after which a run ends, whatever is left.
PATIENCE = 30
#: Seconds between two checks of the processes.
TICK = 0.05
#: Maximum seconds between the step that triggers a kill and the kill.
JITTER = 0.005
#: Seconds that the server takes to store a message; slow enough that a drain needs several workers.
STORING = 0.005
#: Number of steps of one message: MAIL, RCPT, DATA, body and dot.
STEPS = 5


@dataclass
class Plan:
    """The parameters of a run."""

    engine: str
    messages: int = 600
    kills: int = 20
    #: Number of concurrent drains.
    drains: int = 1
    seed: int = 1
    #: Maximum number of workers of each drain.
    workers: int = 8
    #: Directory with another release of the package; "": this one.
    old: str = ""


def run(plan: Plan) -> Ledger:
    """Carry out the plan and return its ledger."""
    site = Site(plan.engine, MAIL_QUEUE_LEASE=LEASE, MAIL_QUEUE_WORKERS=plan.workers)
    with tempfile.TemporaryDirectory() as directory, site.here():
        return Run(plan, site, directory).ledger()


class Run:
    """The state that all processes of a run share."""

    def __init__(self, plan: Plan, site: Site, directory: str) -> None:
        self.plan = plan
        self.site = site
        #: The messages that the servers of the run have stored.
        self.arrivals: list[Stored] = []
        #: 0.1.2 opens its log in the working directory.
        self.options = {"package": plan.old, "cwd": directory}
        self.random = random.Random(plan.seed)
        self.queue = site.queue()
        self.kills = self.connections = 0
        self.failures: list[str] = []

    def ledger(self) -> Ledger:
        """Queue, drain and kill, drain the rest; return the ledger."""
        started = time.monotonic()
        with ExitStack() as stack:
            slots = [stack.enter_context(DrainSlot(self)) for _ in range(self.plan.drains)]
            accepted = self.send()
            self.drain(slots, until=lambda: self.kills >= self.plan.kills)
            self.drain(slots, until=lambda: False)
        ledger = draw_up(accepted, self.arrivals, take_all(self.queue), take_all(self.site.queue("_DEAD")))
        ledger.kills, ledger.connections, ledger.failures = self.kills, self.connections, self.failures
        ledger.seconds = time.monotonic() - started
        return ledger

    def send(self) -> int:
        """Queue the messages; return how many were accepted."""
        sender = ("-m", "tests.kill.sender", str(self.plan.messages))
        return int(self.site.spawn(*sender, stdout=subprocess.PIPE, **self.options).communicate()[0])

    def drain(self, slots: list[DrainSlot], until: Callable[[], bool]) -> None:
        """Keep a drain running in each slot until ``until()`` is true, no message is left, or progress stops."""
        deadline, before = 0.0, -1
        while (left := self.left()) and not until():
            if left != before:
                deadline, before = time.monotonic() + PATIENCE, left
            elif time.monotonic() > deadline:
                break
            for slot in slots:
                slot.keep_running()
            time.sleep(TICK)

    def left(self) -> int:
        """Return how many messages are waiting or reserved."""
        counts = self.queue.counts()
        return counts.waiting + counts.reserved

    def draw_steps(self) -> int:
        """Draw the number of steps after which to kill the next process; 0: never."""
        kills = self.plan.kills - self.kills
        return self.random.randint(1, 2 + int(1.6 * STEPS * self.left() / kills)) if kills > 0 else 0


class DrainSlot:
    """A context manager that runs one drain after another, and kills each after some steps of its server."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.smtp = ScriptedServer(self.step, stored=run.arrivals, extensions=["PIPELINING"])
        self.process: subprocess.Popen[str] | None = None
        self.lock = Lock()
        #: Steps left until the kill; zero or less: no kill.
        self.steps_left = 0

    def __enter__(self) -> DrainSlot:
        self.smtp.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.finish()
        self.smtp.__exit__()

    def keep_running(self) -> None:
        """Start a drain if none is running and a message is due."""
        if self.process is not None and self.process.poll() is None:
            if self.run.kills >= self.run.plan.kills:
                self.steps_left = 0
            return
        self.finish()
        if self.run.queue.counts().due:
            self.steps_left, self.cut_connections = self.run.draw_steps(), 0
            self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by finish()
            pipes = {"stdout": subprocess.DEVNULL, "stderr": self.errors}
            self.process = self.run.site.spawn(*DRAIN, port=self.smtp.port, **pipes, **self.run.options)

    def step(self, step: str, argument: str) -> Action:
        """Count the step, in a thread of the server; offer PIPELINING to half of the connections, at random."""
        with self.lock:
            self.steps_left -= 1
            if self.steps_left == 0:
                Timer(self.run.random.uniform(0, JITTER), self.kill).start()
        if step == "dot":
            time.sleep(STORING)
        return "250 here" if step == "EHLO" and self.run.random.random() < 0.5 else None

    def kill(self) -> None:
        """Kill the drain if it has a connection; otherwise at its next step."""
        self.cut_connections = len(self.smtp.open_sessions)
        if not self.cut_connections:
            self.steps_left = 1
        elif (process := self.process) is not None:
            process.send_signal(signal.SIGKILL)

    def finish(self) -> None:
        """Wait for the end of the drain, and record how it ended."""
        if self.process is None:
            return
        status = self.process.wait(timeout=PATIENCE)
        with self.errors:
            self.errors.seek(0)
            if status == -signal.SIGKILL:
                self.run.kills += 1
                self.run.connections += self.cut_connections
            elif status:
                last_line = self.errors.read().strip().rpartition("\n")[2]
                self.run.failures.append(f"A drain exited with {status}: {last_line}")
        self.process = None


def take_all(queue: MessageQueue) -> list[bytes]:
    """Remove and return all waiting payloads."""
    return queue.read_many(queue.counts().waiting)
