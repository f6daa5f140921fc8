"""Run a site: check, migrate, send and drain, each in a separate process, with a real server for each SMTP mailer."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from django.core import mail

from tests import TOP

from ..smtp.inbox import Inbox, MailServer

#: EMAIL_BACKEND is the SMTP backend; EMAIL_BACKEND is the relay; MAILERS has two SMTP mailers and a relay.
KINDS = ("smtp", "relay", "mailers") if hasattr(mail, "mailers") else ("smtp", "relay")

WAYS = ["send_mail", "send_mass_mail", "EmailMessage", "rich"]
OLD_WAYS = [*WAYS, "connection"]


def prefixed(alias: str) -> list[str]:
    return [f"{alias}: {way}" for way in WAYS]


#: Kind -> subjects that arrive at the first server, at the second, and in the files.
ARRIVALS = {
    "smtp": (OLD_WAYS, [], []),
    "relay": ([], [], OLD_WAYS),
    "mailers": (WAYS, prefixed("news"), prefixed("archive")),
}


@dataclass
class Visit:
    """The observations of a visit."""

    kind: str
    #: Subjects that arrived at the first server, at the second, and in the files.
    arrivals: tuple[list[str], list[str], list[str]] = ([], [], [])
    #: Command -> the last line of its output.
    said: dict[str, str] = field(default_factory=dict)
    stderr: str = ""

    @property
    def warnings(self) -> list[str]:
        """All warnings on stderr."""
        return [line for line in self.stderr.splitlines() if "Warning: " in line]

    @property
    def our_warnings(self) -> list[str]:
        """The warnings that Python attributes to a file of this package."""
        return [line for line in self.warnings if f"mailqueue_backend{os.sep}" in line.partition("Warning: ")[0]]


def visit(kind: str) -> Visit:
    """Run a site of this kind. Raises CalledProcessError when a command fails."""
    seen = Visit(kind)
    with tempfile.TemporaryDirectory() as directory, inbox() as (first, port), inbox() as (second, other_port):
        environ = {
            **os.environ,
            "DJANGO_SETTINGS_MODULE": "tests.sites.settings",
            "PYTHONIOENCODING": "utf-8",
            "SITE_KIND": kind,
            "SITE_DIRECTORY": directory,
            "SITE_PORTS": f"{port} {other_port}",
        }
        for words in ("django check", "django migrate", "tests.sites.sender", "django process_mail_queue"):
            run(seen, words, environ)
        seen.arrivals = (first.subjects, second.subjects, subjects_in(Path(directory, "files")))
    return seen


def run(seen: Visit, words: str, environ: dict[str, str]) -> None:
    """Run one command, showing every occurrence of every warning."""
    done = subprocess.run(
        [sys.executable, "-W", "always", "-m", *words.split()],
        cwd=TOP,
        env=environ,
        capture_output=True,
        encoding="utf-8",
        check=False,
        timeout=120,
    )
    seen.stderr += done.stderr
    if done.returncode:
        raise AssertionError(f"{words} of the site {seen.kind!r} exits with {done.returncode}:\n{done.stderr}")
    seen.said[words] = done.stdout.strip().rpartition("\n")[2]


@contextmanager
def inbox() -> Iterator[tuple[Inbox, int]]:
    """Run an SMTP server; yield its inbox and its port."""
    received = Inbox()
    server = MailServer(received)
    server.start()
    try:
        yield received, server.port
    finally:
        server.stop(no_assert=True)


def subjects_in(directory: Path) -> list[str]:
    """Return the subjects that Django's filebased backend has written."""
    lines = [line for path in directory.glob("*.log") for line in path.read_text(encoding="utf-8").splitlines()]
    return [line.removeprefix("Subject: ") for line in lines if line.startswith("Subject: ")]
