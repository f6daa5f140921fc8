"""Count the calls of this package's functions per message, on SQLite with one worker.

Run it in an environment with Django and queue-front: ``python benchmarks/calls.py``. It exits with 1 if a promise is
missed. ``--list`` also prints the calls by file and function. A call is a "call" event of ``sys.setprofile`` for code
in ``mailqueue_backend/``, so resuming a generator counts as one.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections import Counter
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from types import CodeType, FrameType
from typing import NamedTuple

from contenders import ONE_WORKER_ON_SQLITE, TOP

sys.path.insert(0, str(TOP))

import django
from deliver import make_messages, tables
from django.conf import settings
from django.core.mail import get_connection
from django.core.management import call_command
from promises import Verdict
from servers import DelayingServer

import mailqueue_backend

PACKAGE = Path(mailqueue_backend.__file__).parent
#: Messages in the short drain, messages in the long drain, and calls of send().
SHORT, LONG, SENDS = 8, 88, 10

#: Number of calls by file and function.
Calls = Counter[tuple[str, str]]


class Cost(NamedTuple):
    """The calls made for ``messages`` messages, and the maximum of calls and files that we promise per message."""

    title: str
    calls: Calls
    messages: int
    most_calls: int
    most_files: int

    def verdict(self) -> Verdict:
        # A file that is called only once for many messages, such as to compile a statement, does not count.
        files = len({file for (file, _), count in self.calls.items() if count > 0.05 * self.messages})
        calls = self.calls.total() / self.messages
        kept = calls <= self.most_calls and files <= self.most_files
        return Verdict(
            self.title, f"{calls:.1f} in {files} files", f"at most {self.most_calls} in {self.most_files}", kept
        )

    def lines(self) -> list[str]:
        """Return the calls per message, by file and function."""
        return [
            f"{count / self.messages:8.2f}  {file}: {function}"
            for (file, function), count in sorted(self.calls.items())
        ]


def main() -> int:
    """Measure, and print the results."""
    options = parse()
    with TemporaryDirectory() as name, DelayingServer(Path(name), ["--delay=0", "--pipelining"]) as server:
        found = ONE_WORKER_ON_SQLITE.settings_in(Path(name))
        found["MAIL_QUEUE_LOG_FILENAME"] = str(Path(name) / "discards.log")
        settings.configure(**found, EMAIL_HOST="127.0.0.1", EMAIL_PORT=server.port)
        django.setup()
        with tables():
            costs = [drain_cost(), send_cost()]
        # The messages of send_cost() are not drained.
        if (received := server.received()) != SHORT + 2 * LONG:
            raise AssertionError(f"{received} messages arrived")
    verdicts = [cost.verdict() for cost in costs]
    if options.json:
        print(json.dumps(verdicts))
        return 0
    for cost, verdict in zip(costs, verdicts, strict=True):
        print(f"{verdict.promise}: {verdict.measured} ({verdict.target})")
        print(*(cost.lines() if options.list else []), sep="\n", end="\n" * options.list)
    return 0 if all(verdict.kept for verdict in verdicts) else 1


def parse() -> Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description="Count the function calls per message.")
    parser.add_argument("--list", action="store_true", help="print the calls by file and function")
    parser.add_argument("--json", action="store_true", help="print the verdicts for run.py")
    return parser.parse_args()


def drain_cost() -> Cost:
    """Compare a short and a long drain, after a first one that imports modules and fills caches."""
    _, short, long = (_count_drain(messages) for messages in (LONG, SHORT, LONG))
    return Cost("calls for each further message of a drain", long - short, LONG - SHORT, 80, 15)


def _count_drain(messages: int) -> Calls:
    get_connection().send_messages(make_messages(messages))
    return count_calls(lambda: call_command("process_mail_queue", stdout=StringIO()))


def send_cost() -> Cost:
    """Count the calls of several sends by one backend, after a first one that fills caches."""
    connection = get_connection()
    first, *others = ([message] for message in make_messages(SENDS + 1))
    connection.send_messages(first)
    calls = count_calls(lambda: [connection.send_messages(message) for message in others])
    return Cost("calls of one send()", calls, SENDS, 35, 7)


def count_calls(function: Callable[[], object]) -> Calls:
    """Count the package's calls in this thread, where a drain with one worker does all its work."""
    codes: Counter[CodeType] = Counter()

    def profile(frame: FrameType, event: str, argument: object) -> None:
        # Keep this fast, because a slow drain settles more often.
        if event == "call":
            codes[frame.f_code] += 1

    sys.setprofile(profile)
    try:
        function()
    finally:
        sys.setprofile(None)
    calls: Calls = Counter()
    for code, count in codes.items():
        if (path := Path(code.co_filename)).is_relative_to(PACKAGE):
            name = getattr(code, "co_qualname", code.co_name)  # Python < 3.11: no co_qualname
            calls[str(path.relative_to(PACKAGE)), name] += count
    return calls


if __name__ == "__main__":
    sys.exit(main())
