"""One run: queue messages, drain them in processes that are killed, drain what is left, draw up the ledger."""

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

#: Seconds: long enough for a message on a slow machine, short enough to wait for.
LEASE = 3
#: Seconds without any progress after which a run is over, whatever is left.
PATIENCE = 30
#: Seconds between two looks at the processes.
TICK = 0.05
#: Seconds, at most, between a step that the server reaches and the kill that it triggers.
JITTER = 0.005
#: Seconds that the server takes to store a message, so that a drain needs several workers.
STORING = 0.005
#: Steps of one message: MAIL, RCPT, DATA, body and dot.
STEPS = 5


@dataclass
class Plan:
    """What a run is to do."""

    engine: str
    messages: int = 600
    kills: int = 20
    #: Drains at once.
    drains: int = 1
    seed: int = 1
    #: Of each drain, at most.
    workers: int = 8
    #: A directory with another release of the package.
    old: str = ""


def run(plan: Plan) -> Ledger:
    """Do what the plan says."""
    site = Site(plan.engine, MAIL_QUEUE_LEASE=LEASE, MAIL_QUEUE_WORKERS=plan.workers)
    with tempfile.TemporaryDirectory() as directory, site.here():
        return Run(plan, site, directory).ledger()


class Run:
    """The processes of a run, and what they have in common."""

    def __init__(self, plan: Plan, site: Site, directory: str) -> None:
        self.plan = plan
        self.site = site
        #: What all servers of the run have stored.
        self.arrivals: list[Stored] = []
        #: 0.1.2 opens its log where it is started.
        self.options = {"package": plan.old, "cwd": directory}
        self.random = random.Random(plan.seed)
        self.queue = site.queue()
        self.kills = self.connections = 0
        self.failures: list[str] = []

    def ledger(self) -> Ledger:
        """Queue, drain and kill, drain to the end."""
        started = time.monotonic()
        with ExitStack() as stack:
            places = [stack.enter_context(Place(self)) for _ in range(self.plan.drains)]
            accepted = self.send()
            self.drain(places, until=lambda: self.kills >= self.plan.kills)
            self.drain(places, until=lambda: False)
        ledger = draw_up(accepted, self.arrivals, take_all(self.queue), take_all(self.site.queue("_DEAD")))
        ledger.kills, ledger.connections, ledger.failures = self.kills, self.connections, self.failures
        ledger.seconds = time.monotonic() - started
        return ledger

    def send(self) -> int:
        """Queue the messages, and tell how many were accepted."""
        sender = ("-m", "tests.kill.sender", str(self.plan.messages))
        return int(self.site.spawn(*sender, stdout=subprocess.PIPE, **self.options).communicate()[0])

    def drain(self, places: list[Place], until: Callable[[], bool]) -> None:
        """Keep a drain running in each place until then, or until nothing is left, or nothing happens any more."""
        deadline, before = 0.0, -1
        while (left := self.left()) and not until():
            if left != before:
                deadline, before = time.monotonic() + PATIENCE, left
            elif time.monotonic() > deadline:
                break
            for place in places:
                place.keep_running()
            time.sleep(TICK)

    def left(self) -> int:
        """Count what is still in the queue, in whose hands ever."""
        counts = self.queue.counts()
        return counts.waiting + counts.reserved

    def fuse(self) -> int:
        """Draw the number of steps after which the next process is killed; 0: never."""
        kills = self.plan.kills - self.kills
        return self.random.randint(1, 2 + int(1.6 * STEPS * self.left() / kills)) if kills > 0 else 0


class Place:
    """Runs one drain after the other, and kills each after some steps of its server. A context manager."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.smtp = ScriptedServer(self.step, stored=run.arrivals, extensions=["PIPELINING"])
        self.process: subprocess.Popen[str] | None = None
        self.lock = Lock()
        #: Steps that are left before the kill; not positive: no kill.
        self.fuse = 0

    def __enter__(self) -> Place:
        self.smtp.__enter__()
        return self

    def __exit__(self, *args: object) -> None:
        self.finish()
        self.smtp.__exit__()

    def keep_running(self) -> None:
        """Start a drain when there is none any more, and something to do for one."""
        if self.process is not None and self.process.poll() is None:
            if self.run.kills >= self.run.plan.kills:
                self.fuse = 0
            return
        self.finish()
        if self.run.queue.counts().due:
            self.fuse, self.cut = self.run.fuse(), 0
            self.errors = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed by finish()
            pipes = {"stdout": subprocess.DEVNULL, "stderr": self.errors}
            self.process = self.run.site.spawn(*DRAIN, port=self.smtp.port, **pipes, **self.run.options)

    def step(self, step: str, argument: str) -> Action:
        """Count the step, in a thread of the server; offer PIPELINING to every other connection."""
        with self.lock:
            self.fuse -= 1
            if self.fuse == 0:
                Timer(self.run.random.uniform(0, JITTER), self.kill).start()
        if step == "dot":
            time.sleep(STORING)
        return "250 here" if step == "EHLO" and self.run.random.random() < 0.5 else None

    def kill(self) -> None:
        """Kill the drain if it has a connection; otherwise at its next step."""
        self.cut = len(self.smtp.open_sessions)
        if not self.cut:
            self.fuse = 1
        elif (process := self.process) is not None:
            process.send_signal(signal.SIGKILL)

    def finish(self) -> None:
        """Wait for the end of the drain, and note how it ended."""
        if self.process is None:
            return
        status = self.process.wait(timeout=PATIENCE)
        with self.errors:
            self.errors.seek(0)
            if status == -signal.SIGKILL:
                self.run.kills += 1
                self.run.connections += self.cut
            elif status:
                last_words = self.errors.read().strip().rpartition("\n")[2]
                self.run.failures.append(f"A drain ended with {status}: {last_words}")
        self.process = None


def take_all(queue: MessageQueue) -> list[bytes]:
    """Take out all that is left."""
    return queue.read_many(queue.counts().waiting)
