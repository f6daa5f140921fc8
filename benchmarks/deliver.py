"""Send messages, deliver them, and time one of the two, in a process in the contender's environment.

It reads JSON from stdin, ``{"settings": …, "command": …, "messages": …, "measure": …}``, and prints JSON: the rate in
messages per second, and the number of database connections opened meanwhile. If the command is null, there is no queue,
and send_messages() delivers.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from time import perf_counter
from typing import Any

import django
from django.conf import settings
from django.core import mail
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created

#: 2 kB, the size of a typical notification by a web site.
BODY = "A line of the body of this message, as plain as can be.\r\n" * 35


def main(task: dict[str, Any]) -> dict[str, float]:
    """Carry out the task, and return the rate and the number of connections."""
    settings.configure(**task["settings"])
    django.setup()
    measure = {"drain": drain, "send": send_one_by_one}[task["measure"]]
    with tables():
        return measure(make_messages(task["messages"]), task["command"])


@contextmanager
def tables() -> Iterator[None]:
    """Create the tables; on a database server, in a separate database that is dropped at the end."""
    if connections["default"].vendor == "sqlite":
        call_command("migrate", verbosity=0)
        yield
        return
    name = connections["default"].settings_dict["NAME"]
    creation = connections["default"].creation
    creation.create_test_db(verbosity=0, autoclobber=True, serialize=False)
    try:
        yield
    finally:
        creation.destroy_test_db(name, verbosity=0)


def make_messages(count: int) -> list[mail.EmailMessage]:
    return [
        mail.EmailMessage(f"Message {number}", BODY, "shop@example.org", [f"reader{number}@example.org"])
        for number in range(count)
    ]


def drain(messages: list[mail.EmailMessage], command: str | None) -> dict[str, float]:
    """Queue all messages in one call, then time the drain, which opens its own connections to the database."""
    connection = mail.get_connection()
    if command:
        connection.send_messages(messages)
    connections.close_all()
    opened: list[object] = []
    connection_created.connect(lambda **event: opened.append(event["connection"]), weak=False)
    start = perf_counter()
    if command:
        call_command(command)
    else:
        connection.send_messages(messages)
    return {"rate": len(messages) / (perf_counter() - start), "connections": len(opened)}


def send_one_by_one(messages: list[mail.EmailMessage], command: str) -> dict[str, float]:
    """Time send() for all messages except the first, which imports modules; then deliver them."""
    messages[0].send()
    start = perf_counter()
    for message in messages[1:]:
        message.send()
    seconds = perf_counter() - start
    call_command(command)
    return {"rate": (len(messages) - 1) / seconds, "connections": 0}


if __name__ == "__main__":
    with redirect_stdout(StringIO()):  # 0.1.2 prints its summary
        result = main(json.load(sys.stdin))
    print(json.dumps(result))
