"""``manage.py process_mail_queue``: deliver what is queued."""

from __future__ import annotations

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from mailqueue_backend.errors import MailQueueError
from mailqueue_backend.mail.mailers import backends_to_drain


class Command(BaseCommand):
    """Drain the queue of each mailer that is ours, and print what became of the messages."""

    help = "Deliver the queued mail: try each message once, requeue what fails, discard what has expired."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Take the word that 0.1.2 took."""
        parser.add_argument("test", nargs="?", choices=["test"], help="Accepted as ever; it changes nothing.")

    def handle(self, *args: Any, **options: Any) -> None:
        """Drain and print the summary. Exits with 1 and a message when the queue fails."""
        backends = backends_to_drain()
        if not backends:
            self.stderr.write("No mailer of this site queues its mail here, so there is nothing to deliver.")
        try:
            results = [backend.send_queued_messages() for backend in backends]
        except MailQueueError as error:
            raise CommandError(str(error)) from error
        sent, discarded, length = (sum(figures) for figures in zip((0, 0, 0), *results, strict=True))
        self.stdout.write(f"{_messages(sent)} sent and {_messages(discarded)} discarded out of {_messages(length)}.")


def _messages(number: int) -> str:
    return f"{number} message" if number == 1 else f"{number} messages"
