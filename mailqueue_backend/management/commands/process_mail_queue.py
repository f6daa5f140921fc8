"""``manage.py process_mail_queue``: deliver the queued mail."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, ArgumentTypeError
from functools import partial
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.db import connections, reset_queries

from mailqueue_backend.delivery.limits import DrainOptions, StopRequest, stopping_on_signals
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.delivery.words import count
from mailqueue_backend.errors import MailQueueError
from mailqueue_backend.mail.mailers import backends_to_drain, drain_all, why_nothing_is_drained


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

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain and print the summary. Raises CommandError if the queue is unavailable or a setting is wrong."""
        stop = StopRequest()
        drain = DrainOptions(options["limit"], options["time_limit"], options["workers"], stop, Troubles())
        with stopping_on_signals(stop):
            self._drain(drain, options)
            while options["loop"] and not self._wait(stop, options["interval"]):
                self._drain(drain, options)
        if stop.forced_by is not None:
            sys.exit(128 + stop.forced_by)

    def _wait(self, stop: StopRequest, seconds: float) -> bool:
        """Wait for the next run of a loop, as between two requests; return whether to stop."""
        for connection in connections.all(initialized_only=True):
            if not connection.in_atomic_block:  # the transaction of a TestCase
                connection.close_if_unusable_or_obsolete()
        reset_queries()
        return stop.wait(seconds)

    def _drain(self, drain: DrainOptions, options: dict[str, Any]) -> None:
        # Subclasses written for 0.1.2 may accept no other argument.
        expire = [] if options["expire"] is None else [options["expire"]]
        backends: list[Any] = []
        results: list[tuple[int, int, int]] = []
        failure: MailQueueError | None = None
        try:
            backends = backends_to_drain(options["using"])
            for result in drain_all(backends, drain, *expire):  # not list(): keep the results that precede an error
                results.append(result)
        except MailQueueError as error:
            failure = error
            results += [backend.report.result for backend in backends[len(results) :][:1]]
        reports = [backend.report for backend in backends]
        if options["verbosity"] and (not options["loop"] or any(map(_is_news, results, reports))):
            self._print(results, reports)
        if failure is not None and not options["loop"]:
            raise CommandError(str(failure)) from failure
        self._report(drain, failure, backends)

    def _report(self, drain: DrainOptions, failure: MailQueueError | None, backends: list[Any]) -> None:
        """Print why nothing could be drained, but not again in each run of a loop."""
        assert drain.troubles is not None
        report = partial(drain.troubles.report, log=self.stderr.write)
        for backend in backends:
            if (reason := backend.report.paused) is not None:
                name = backend.queue_name
                text = f"{name} is paused{reason and ': '}{reason}. Nothing is delivered until it is resumed."
                report(("paused", name), text, over=f"{name} is resumed.", log=self.stdout.write)
        if failure is not None:
            report("failure", str(failure), over="The queue is available again.")
        elif not backends:
            report("no mailer", why_nothing_is_drained())
        drain.troubles.end_run()

    def _print(self, results: list[tuple[int, int, int]], reports: list[Report]) -> None:
        others = (
            (sum(report.requeued for report in reports), "message", "requeued"),
            (sum(report.buried for report in reports), "message", "set aside"),
            (sum(report.recipients_given_up for report in reports), "recipient", "given up"),
        )
        if words := ", ".join(f"{count(number, noun)} {what}" for number, noun, what in others if number):
            self.stdout.write(f"{words}.")
        sent, discarded, length = (count(sum(figures), "message") for figures in zip((0, 0, 0), *results, strict=True))
        self.stdout.write(f"{sent} sent and {discarded} discarded out of {length}.")
        self.stdout.flush()


def _is_news(result: tuple[int, int, int], report: Report) -> bool:
    """Return whether the drain gave up or delivered anything; a loop prints no summary otherwise."""
    sent, discarded, _ = result
    return bool(sent or discarded or report.buried or report.recipients_given_up)


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
