"""A child process that empties a queue and prints the payloads: ``python -m tests.engines.takers …``.

spawn() starts it. It prints "ready", waits for a line on stdin, takes every message, and prints one payload per line
in hex.
"""

from __future__ import annotations

import subprocess
import sys

import django
from django.db import connections
from django.test import override_settings

from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue, Reservation, Settlement
from mailqueue_backend.settings import conf

#: Treat warnings as errors, except the one that Django 6.1 issues about EMAIL_BACKEND at start-up.
WARNINGS = ["-W", "error", "-W", "ignore:The EMAIL_:PendingDeprecationWarning"]


def take_all(queue: MessageQueue) -> list[bytes]:
    """Take every message as a drain does: each exchange acknowledges one group and reserves the next."""
    payloads: list[bytes] = []
    reservations: list[Reservation] = []
    with queue.consumer(60) as consumer:
        while True:
            answer = consumer.exchange([Settlement(reservation, "ack") for reservation in reservations], wanted=4)
            if not all(answer.settled):
                raise AssertionError(f"lost a lease: {answer.settled} of {reservations!r}")
            reservations = answer.reservations
            if not reservations:
                return payloads
            payloads += [reservation.payload for reservation in reservations]


def spawn(name: str, journal_mode: str = "") -> subprocess.Popen[str]:
    """Start a taker on this queue, with the engine and the test database of the calling test."""
    alias = conf.MAIL_QUEUE_DATABASE
    database = str(connections[alias].settings_dict["NAME"])
    return subprocess.Popen(
        [
            sys.executable,
            *WARNINGS,
            "-m",
            "tests.engines.takers",
            name,
            conf.QUEUE_BACKEND or "",
            alias,
            database,
            journal_mode,
        ],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def main(name: str, backend: str, alias: str, database: str, journal_mode: str) -> None:
    django.setup()
    connections[alias].settings_dict["NAME"] = database
    with override_settings(QUEUE_BACKEND=backend or None, MAIL_QUEUE_DATABASE=alias):
        if journal_mode:
            set_journal_mode(alias, journal_mode)
        queue = open_queue(name)
        len(queue)  # connects
        print("ready", flush=True)
        sys.stdin.readline()
        for payload in take_all(queue):
            print(payload.hex())
    connections.close_all()


def set_journal_mode(alias: str, mode: str) -> None:
    """Switch SQLite's journal mode. WAL persists in the file; the other modes last as long as the connection."""
    with connections[alias].cursor() as cursor:
        cursor.execute(f"PRAGMA journal_mode = {mode}")
        if cursor.fetchone() != (mode.lower(),):
            raise AssertionError(f"SQLite refuses journal_mode = {mode}")


if __name__ == "__main__":
    main(*sys.argv[1:])
