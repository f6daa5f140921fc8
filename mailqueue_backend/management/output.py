"""What process_mail_queue prints: a summary, or JSON, and what becomes of each message."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from django.core.management.base import OutputWrapper

from ..delivery.events import Event
from ..delivery.words import count, printable
from ..mail.rehearsal import Rehearsed
from ..mail.runs import Run

OnEvent = Callable[[Event], object]


class Output:
    """The output of a command with these options. With --json, everything but the object goes to stderr."""

    def __init__(self, stdout: OutputWrapper, stderr: OutputWrapper, options: dict[str, Any]) -> None:
        self._stdout = stdout
        self._as_json: bool = options["json"]
        self._verbosity: int = options["verbosity"]
        self._is_loop: bool = options["loop"]
        self._limit: int | None = options["limit"]
        #: Write a line for people.
        self.say: Callable[[str], object] = stderr.write if self._as_json else stdout.write

    @contextmanager
    def watching(self, run: Run) -> Iterator[OnEvent | None]:
        """Provide a function to call with each event: it prints a line, or moves the bar on. None: nothing to do."""
        progress_bar = self._find_progress_bar()
        if self._verbosity > 1:
            yield self._print_event
        elif progress_bar is None:
            yield None
        else:
            # disable=None: no bar if stderr, to which it is written, is not a terminal
            with progress_bar(unit=" messages", leave=False, disable=None) as bar:
                yield lambda event: self._advance(bar, run)

    def show(self, run: Run) -> None:
        """Print the figures of a run; in a loop, the summary only if messages have left the queue."""
        if self._as_json:
            self._print_json(run.figures())
        elif self._verbosity and (not self._is_loop or _is_news(run)):
            self._print_summary(run)

    def show_rehearsal(self, rehearsed: list[Rehearsed]) -> None:
        """Print each message that could not be delivered, or how many could."""
        problems = [each for each in rehearsed if each.problem]
        if self._as_json:
            self._print_json(
                {"fine": len(rehearsed) - len(problems), "problems": [each._asdict() for each in problems]}
            )
            return
        for each in problems:
            self.say(printable(f"{each.id}: {each.problem}"))
        if self._verbosity and not problems:
            self.say(f"{count(len(rehearsed), 'message')} can be delivered.")

    def _print_json(self, content: dict[str, Any]) -> None:
        self._stdout.write(json.dumps(content))
        self._stdout.flush()

    def _print_summary(self, run: Run) -> None:
        others = filter(None, map(run.describe, ("requeued", "buried", "recipients_given_up")))
        if words := ", ".join(others):
            self._stdout.write(f"{words}.")
        sent, discarded, length = (count(run.total(figure), "message") for figure in ("sent", "discarded", "length"))
        self._stdout.write(f"{sent} sent and {discarded} discarded out of {length}.")
        self._stdout.flush()

    def _print_event(self, event: Event) -> None:
        fields = event.fields()
        recipients = f" to {fields['to']}" if fields["to"] else ""
        result = event.error or event.reply
        self.say(printable(f"{event.status} {event.id}{recipients}{result and ': '}{result}"))

    def _find_progress_bar(self) -> Any:
        """Return tqdm's class; None if there is no terminal to show a bar on, or if tqdm is not installed."""
        if self._as_json or self._is_loop or self._verbosity != 1 or not self._stdout.isatty():
            return None
        try:
            from tqdm import tqdm
        except ImportError:
            return None
        return tqdm

    def _advance(self, bar: Any, run: Run) -> None:
        due = sum(report.length for report in run.reports)
        bar.total = due if self._limit is None else min(due, self._limit)
        bar.update()


def _is_news(run: Run) -> bool:
    """Return whether anything was delivered or given up; a loop prints no summary otherwise."""
    return any(map(run.total, ("sent", "discarded", "buried", "recipients_given_up")))
