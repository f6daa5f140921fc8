"""``manage.py process_mail_queue``: deliver the queued mail."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from dataclasses import replace
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, reset_queries

from mailqueue_backend.delivery.limits import DrainOptions, StopRequest, stopping_on_signals
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.delivery.words import count
from mailqueue_backend.errors import MailQueueError
from mailqueue_backend.mail.mailers import backends_to_drain, why_nothing_is_drained
from mailqueue_backend.mail.rehearsal import rehearse
from mailqueue_backend.mail.runs import LOSSES, Run
from mailqueue_backend.management.output import Output
from mailqueue_backend.management.ping import ping, url

#: The value of --fail-on that is the default.
NEVER = "never"


class Command(BaseCommand):
    """Drain the queues of all mailers that queue, and print a summary.

    After a SIGTERM or SIGINT, finish the messages that are being sent. After a second one, abort and requeue them, and
    exit with 128 plus the number of the signal.
    """

    help = "Deliver the queued mail: try each message once, requeue what fails, discard what has expired."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the positional argument of 0.1.2, and the options that override settings."""
        parser.add_argument("test", nargs="?", choices=["test"], help="Accepted for compatibility; has no effect.")
        parser.add_argument("--using", metavar="ALIAS", help="Drain only the queue of this mailer, all of it.")
        parser.add_argument("--limit", type=_count, metavar="N", help="Try at most N messages.")
        parser.add_argument("--time-limit", type=_seconds, metavar="S", help="Start no message after S seconds.")
        parser.add_argument("--workers", type=_count, metavar="N", help="Open at most N connections.")
        parser.add_argument(
            "--expire", type=_seconds, metavar="S", help="Discard failed messages older than S seconds."
        )
        parser.add_argument("--loop", action="store_true", help="Drain repeatedly, until SIGTERM.")
        parser.add_argument(
            "--interval", type=_seconds, default=10, metavar="S", help="Seconds between two drains (10)."
        )
        parser.add_argument(
            "--json", action="store_true", help="Print one JSON object per run, and all else on stderr."
        )
        parser.add_argument(
            "--fail-on",
            choices=[NEVER, *LOSSES],
            default=NEVER,
            help="Exit with 1 if this, or worse, has happened to a message (never).",
        )
        parser.add_argument("--ping", type=url, metavar="URL", help="Request URL after each run that went well.")
        parser.add_argument(
            "--dry-run",
            action="store_true",
            help="Open and render all queued mail, and send nothing; exit with 1 if any could not be delivered.",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain and print the summary.

        Raises CommandError if the queue is unavailable, if a setting is wrong, or as --fail-on and --dry-run say.
        """
        _refuse_contradictions(options)
        self._output = Output(self.stdout, self.stderr, options)
        if options["dry_run"]:
            self._rehearse(options["using"])
            return
        stop = StopRequest()
        drain = DrainOptions(options["limit"], options["time_limit"], options["workers"], stop, Troubles())
        with stopping_on_signals(stop):
            losses = self._drain(drain, options)
            while options["loop"] and not self._wait(stop, options["interval"]):
                self._drain(drain, options)
        if stop.forced_by is not None:
            sys.exit(128 + stop.forced_by)
        if losses:
            raise CommandError(f"Not all mail was delivered: {losses}.")

    def _wait(self, stop: StopRequest, seconds: float) -> bool:
        """Wait for the next run of a loop, as between two requests; return whether to stop."""
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:  # the transaction of a TestCase
                connection.close_if_unusable_or_obsolete()
        reset_queries()
        return stop.wait(seconds)

    def _drain(self, drain: DrainOptions, options: dict[str, Any]) -> str:
        """Drain once, and return what happened that is at least as bad as --fail-on says."""
        # Subclasses written for 0.1.2 may accept no other argument.
        expire = [] if options["expire"] is None else [options["expire"]]
        run = Run()
        with self._output.watching(run) as on_event:
            run.drain(options["using"], replace(drain, on_event=on_event), *expire)
        assert drain.troubles is not None
        self._report_pauses(drain.troubles, run)
        self._output.show(run)
        if run.failure is not None and not options["loop"]:
            raise CommandError(str(run.failure)) from run.failure
        losses = "" if options["fail_on"] == NEVER else run.describe_losses(options["fail_on"])
        if options["ping"] and run.went_well and not losses and not drain.stop.asked:
            self._ping(drain.troubles, options["ping"])
        self._report(drain.troubles, run)
        return losses

    def _ping(self, troubles: Troubles, address: str) -> None:
        if failure := ping(address):
            troubles.report("ping", failure, log=self.stderr.write)

    def _report_pauses(self, troubles: Troubles, run: Run) -> None:
        """Print which queues are paused, before the summary: 0.1.2 printed it last."""
        for backend in run.backends:
            if (reason := backend.report.paused) is not None:
                name = backend.queue_name
                text = f"{name} is paused{reason and ': '}{reason}. Nothing is delivered until it is resumed."
                troubles.report(("paused", name), text, over=f"{name} is resumed.", log=self._output.say)

    def _report(self, troubles: Troubles, run: Run) -> None:
        """Print why nothing could be drained, but not again in each run of a loop."""
        report = partial(troubles.report, log=self.stderr.write)
        if run.failure is not None:
            report("failure", str(run.failure), over="The queue is available again.")
        elif not run.backends:
            report("no mailer", why_nothing_is_drained())
        troubles.end_run()

    def _rehearse(self, using: str | None) -> None:
        """Open and render everything that is queued. Raises CommandError if anything could not be delivered."""
        try:
            backends = backends_to_drain(using)
            rehearsed = [each for backend in backends for each in rehearse(backend)]
        except MailQueueError as error:
            raise CommandError(str(error)) from error
        if not backends:
            self.stderr.write(why_nothing_is_drained())
        self._output.show_rehearsal(rehearsed)
        if problems := sum(1 for each in rehearsed if each.problem):
            raise CommandError(f"{count(problems, 'message')} of {len(rehearsed)} could not be delivered by this code.")


def _refuse_contradictions(options: dict[str, Any]) -> None:
    """Raise CommandError for options of a single run in a loop: a loop never ends by itself."""
    for name, is_given in (("--fail-on", options["fail_on"] != NEVER), ("--dry-run", options["dry_run"])):
        if options["loop"] and is_given:
            raise CommandError(
                f"{name} does not work with --loop, which goes on after each run. Leave out one of them."
            )


def _count(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1
    if not seconds >= 0:
        raise ArgumentTypeError(f"{text!r} is not a number of seconds")
    return seconds
