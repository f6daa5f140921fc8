"""The arguments of ``manage.py mail_queue``. Django takes no module whose name begins like this for a command."""

from __future__ import annotations

import re
from argparse import SUPPRESS, ArgumentParser, ArgumentTypeError
from pathlib import Path
from typing import Any

from mailqueue_backend.inspection.alarm import Limits
from mailqueue_backend.inspection.listing import LONGEST_ID, SHORTEST_ID, STATES

#: Options of every command, accepted behind the subcommand, too. They have no default there, since it would override
#: what stands before the subcommand.
_BASE_OPTIONS: dict[str, dict[str, Any]] = {
    "--verbosity": {"type": int, "choices": range(4)},
    "--settings": {},
    "--pythonpath": {},
    "--traceback": {"action": "store_true"},
    "--no-color": {"action": "store_true"},
    "--force-color": {"action": "store_true"},
}
_ID = re.compile(rf"[0-9a-f]{{{SHORTEST_ID},{LONGEST_ID}}}")


def add_subcommands(parser: ArgumentParser) -> None:
    """Add all subcommands; ``action`` is the name of the chosen one."""
    subparsers = parser.add_subparsers(dest="action", required=True, metavar="ACTION")

    def add(name: str, description: str) -> ArgumentParser:
        subparser: ArgumentParser = subparsers.add_parser(name, help=description, description=description)
        _add_common(subparser)
        return subparser

    _add_json(add("status", "Print the figures of each queue."))
    _add_criteria(add("list", "List messages."))
    show = add("show", "Print a message.")
    show.add_argument("id", type=_id, metavar="ID", help="An id, or its first digits, at least four.")
    show.add_argument("--raw", action="store_true", help="Print the bytes that would be sent.")
    _add_ids(add("retry", "Make deferred messages due now."))
    _add_ids(add("discard", "Delete messages, each with a line in the discard log."))
    revive = add("revive", "Move dead messages back to the queue.")
    _add_ids(revive)
    revive.add_argument("--trust", action="store_true", help="Sign those that your own site wrote, but did not sign.")
    reason = add("pause", "Hold up the deliveries of all machines until resume. Sending stays possible.")
    reason.add_argument("reason", nargs="?", default="", metavar="REASON", help="Shown by status and by drains.")
    add("resume", "End a pause.")
    _add_limits(add("check", "Check the queues as a Nagios plugin does: one line, and exit status 0, 1, 2 or 3."))
    metrics = add("metrics", "Print the figures of each queue for Prometheus.")
    metrics.add_argument("--output", type=Path, metavar="FILE", help="Replace FILE by them.")
    add("prune", "Delete the rows of the history that are older than MAIL_QUEUE_HISTORY_DAYS.")
    export = add("export", "Write each message to a file: the bytes that would be sent.")
    export.add_argument("directory", type=Path, metavar="DIR")
    _add_state(export)


def _add_common(parser: ArgumentParser) -> None:
    queue = parser.add_mutually_exclusive_group()
    queue.add_argument("--using", metavar="ALIAS", help="Only the queue of this mailer.")
    queue.add_argument("--queue", metavar="NAME", help="Only the queue of this name.")
    for name, options in _BASE_OPTIONS.items():
        names = ("-v", name) if name == "--verbosity" else (name,)
        parser.add_argument(*names, default=SUPPRESS, help=SUPPRESS, **options)


def _add_criteria(parser: ArgumentParser) -> None:
    _add_state(parser)
    parser.add_argument("--to", metavar="S", help="Only messages for an address that contains S.")
    parser.add_argument("--from", dest="sender", metavar="S", help="Only messages from an address that contains S.")
    parser.add_argument("--subject", metavar="S", help="Only messages whose subject contains S.")
    parser.add_argument("--older-than", type=_seconds, metavar="SECONDS", help="Only messages of at least this age.")
    parser.add_argument("--limit", type=_number, metavar="N", help="At most N messages.")
    _add_json(parser)


def _add_ids(parser: ArgumentParser) -> None:
    parser.add_argument("ids", nargs="*", type=_id, metavar="ID", help="An id, or its first digits, at least four.")
    parser.add_argument("--all", action="store_true", help="All messages that this is for.")
    parser.add_argument("--no-input", "--noinput", action="store_false", dest="interactive", help="Do not ask.")


def _add_limits(parser: ArgumentParser) -> None:
    for name, default in Limits()._asdict().items():
        is_age, level = name.endswith("age"), "WARNING" if name.startswith("warn") else "CRITICAL"
        parser.add_argument(
            f"--{name.replace('_', '-')}",
            type=_seconds if is_age else _number,
            default=default,
            metavar="S" if is_age else "N",
            help=f"{level} from {'an age of S seconds' if is_age else 'N dead messages'} on (default: {default}).",
        )


def _add_state(parser: ArgumentParser) -> None:
    parser.add_argument("--state", choices=STATES, help="Only messages in this state.")


def _add_json(parser: ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="Print JSON, one object on each line.")


def _id(text: str) -> str:
    if not _ID.fullmatch(text.lower()):
        raise ArgumentTypeError(f"{text!r} is no id: write its first {SHORTEST_ID} to {LONGEST_ID} digits (0-9, a-f)")
    return text.lower()


def _number(text: str) -> int:
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
