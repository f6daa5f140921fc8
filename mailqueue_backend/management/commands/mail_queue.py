"""``manage.py mail_queue``: look at the queues, and act on single messages."""

from __future__ import annotations

import json
import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable, Iterator
from itertools import chain, islice
from typing import Any

from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError

from mailqueue_backend.delivery.words import count
from mailqueue_backend.errors import MailQueueError
from mailqueue_backend.inspection import text
from mailqueue_backend.inspection.acting import Action, Discard, Retry, Revive, act, act_on_all
from mailqueue_backend.inspection.alarm import Limits, alarm, unknown
from mailqueue_backend.inspection.export import export, render
from mailqueue_backend.inspection.figures import Figures, look_at, queues_of_site, warnings_about
from mailqueue_backend.inspection.listing import STATES, Criteria, find, list_messages
from mailqueue_backend.inspection.messages import Message
from mailqueue_backend.inspection.metrics import as_metrics, replace_file
from mailqueue_backend.management.commands._mail_queue_arguments import add_subcommands
from mailqueue_backend.queues.base import MessageQueue
from mailqueue_backend.queues.paused import pause, resume

#: What has become of the messages that were acted on.
_DONE = {"retry": "due now", "discard": "discarded", "revive": "revived"}


class Command(BaseCommand):
    """Parse, call ``mailqueue_backend.inspection``, print. A method for each subcommand."""

    help = "Look at the mail queues, retry, discard, revive and export messages, and pause deliveries."
    #: None: a problem elsewhere in the site must not hide the queues.
    requires_system_checks: list[str] = []

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the subcommands."""
        add_subcommands(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Carry out a subcommand. Raises CommandError, and SystemExit for the exit status of check."""
        name = options["action"]
        try:
            (self._act if name in _DONE else getattr(self, f"_{name}"))(options)
            self.stdout.flush()
        except BrokenPipeError:
            # The reader, such as head, has seen enough. Nothing more can be written, not even at the end of Python.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (MailQueueError, LookupError, OSError) as error:
            raise CommandError(str(error)) from error

    # looking

    def _status(self, options: dict[str, Any]) -> None:
        """Print the figures of each queue, and to stderr what threatens its mail."""
        queues = _queues(options)
        figures = [look_at(queue) for queue in queues]
        self._print(map(_as_json, figures) if options["json"] else text.table(figures))
        warnings = map(warnings_about, queues, [each.counts for each in figures])
        for warning in dict.fromkeys(chain.from_iterable(warnings)):  # those of the engine are the same for each queue
            self.stderr.write(warning)

    def _list(self, options: dict[str, Any]) -> None:
        criteria = Criteria(options["to"], options["sender"], options["subject"], options["older_than"])
        found = islice(filter(criteria.match, _messages(options)), options["limit"])
        self._print(map(_as_json, found) if options["json"] else chain([text.LIST_HEADING], map(text.line, found)))

    def _show(self, options: dict[str, Any]) -> None:
        messages = find(_browsable_queues(options), [options["id"]])
        if options["raw"]:
            self._write_bytes(render(messages[0]))
        else:
            self._print(chain.from_iterable(map(text.details, messages)))

    def _check(self, options: dict[str, Any]) -> None:
        """Exit with the status of a Nagios plugin."""
        try:
            figures = [look_at(queue) for queue in _queues(options)]
            status, line = alarm(figures, Limits(**{name: options[name] for name in Limits._fields}))
        except (MailQueueError, ImproperlyConfigured) as error:
            status, line = unknown(error)
        self.stdout.write(line)
        if status:
            sys.exit(status)

    def _metrics(self, options: dict[str, Any]) -> None:
        metrics = as_metrics([look_at(queue) for queue in _queues(options)])
        if options["output"] is None:
            self.stdout.write(metrics, ending="")
        else:
            replace_file(options["output"], metrics)

    def _export(self, options: dict[str, Any]) -> None:
        number = 0
        for _, path, problem in export(_messages(options), options["directory"]):
            number += 1
            if problem:
                self.stderr.write(f"{path} is the payload, since it is not a message: {text.printable(problem)}")
        self._say(options, f"{count(number, 'message')} exported.")

    # acting

    def _act(self, options: dict[str, Any]) -> None:
        """Retry, discard or revive, and report the messages that are skipped."""
        name = options["action"]
        action = Revive(options["trust"]) if name == "revive" else {"retry": Retry, "discard": Discard}[name]()
        done = skipped = 0
        try:
            for message, problem in self._results(action, options):
                if problem:
                    self.stderr.write(f"{message.id} is skipped: {text.printable(problem)}")
                done, skipped = done + (not problem), skipped + bool(problem)
        finally:
            if done:
                self._say(options, f"{count(done, 'message')} {_DONE[name]}.")
        if skipped:
            raise CommandError(f"{count(skipped, 'message')} skipped.")
        if not done:
            self._say(options, "There is nothing to do.")

    def _results(self, action: Action, options: dict[str, Any]) -> Iterator[tuple[Message, str]]:
        """Ask, then act on the messages; yield each, and why it is skipped, or ""."""
        name, queues = options["action"], _browsable_queues(options)
        if bool(options["ids"]) == options["all"]:
            raise CommandError(f"Write the ids of the messages to {name}, or --all.")
        if not options["all"]:
            messages = find(queues, options["ids"])
            if name == "discard":
                self._confirm(options, [*map(text.line, messages), f"Discard {count(len(messages), 'message')}?"])
            return act(action, messages)
        counts = [(queue, queue.counts()) for queue in queues]
        held = [f"{getattr(each, state)} {state} in {queue.name}" for queue, each in counts for state in action.states]
        self._confirm(options, [f"{name.capitalize()} all messages ({', '.join(held)})?"])
        return chain.from_iterable(act_on_all(action, queue) for queue in queues)

    def _confirm(self, options: dict[str, Any], question: Iterable[str]) -> None:
        """Ask on a terminal. Raises CommandError if the answer is no, or if nobody can answer."""
        if not options["interactive"]:
            return
        if sys.stdin is None or not sys.stdin.isatty():
            raise CommandError(
                f"There is no terminal to confirm this on. To {options['action']} without a question, add --no-input "
                "(with call_command(): interactive=False)."
            )
        self._print(question)
        if input("Type yes to continue: ").strip().lower() != "yes":
            raise CommandError("Nothing was changed.")

    def _pause(self, options: dict[str, Any]) -> None:
        for queue in _queues(options):
            pause(queue, options["reason"])
            self._say(options, f"{queue.name} is paused.")

    def _resume(self, options: dict[str, Any]) -> None:
        for queue in _queues(options):
            was_paused = resume(queue)
            self._say(options, f"{queue.name} is resumed." if was_paused else f"{queue.name} was not paused.")

    def _prune(self, options: dict[str, Any]) -> None:
        """Prune the history, which drains do in small steps."""
        if not apps.is_installed("mailqueue_backend.history"):
            raise CommandError('There is no history: add "mailqueue_backend.history" to INSTALLED_APPS, and migrate.')
        # It has models, which can be imported only where the app is installed.
        from mailqueue_backend.history.statements import prune

        self._say(options, f"{count(prune(), 'row')} deleted.")

    # printing

    def _print(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.stdout.write(line)

    def _say(self, options: dict[str, Any], line: str) -> None:
        if options["verbosity"]:
            self.stdout.write(line)

    def _write_bytes(self, content: bytes) -> None:
        buffer = getattr(self.stdout, "buffer", None)
        if buffer is None:  # call_command(stdout=StringIO())
            self.stdout.write(content.decode("utf-8", "backslashreplace"), ending="")
        else:
            self.stdout.flush()
            buffer.write(content)


def _queues(options: dict[str, Any]) -> list[MessageQueue]:
    return queues_of_site(options["using"], options["queue"])


def _browsable_queues(options: dict[str, Any]) -> list[MessageQueue]:
    """Return the queues. Raises CommandError, with their figures, if one cannot list its messages."""
    queues = _queues(options)
    for queue in queues:
        if not queue.browsable:
            counts = queue.counts()
            raise CommandError(
                f"The queue {queue.name} can only count its messages, since QUEUE_BACKEND has no way to list them: "
                f"{counts.due} due, {counts.dead} dead."
            )
    return queues


def _messages(options: dict[str, Any]) -> Iterator[Message]:
    """Open the messages of all queues, in the state that is asked for, or in all."""
    states = [options["state"]] if options["state"] else STATES
    return chain.from_iterable(list_messages(queue, states) for queue in _browsable_queues(options))


def _as_json(item: Figures | Message) -> str:
    return json.dumps(item.as_json())
