"""What runs in a contender's own environment: queue a number of messages, then deliver them against the clock.

It reads JSON from stdin, ``{"settings": …, "command": …, "messages": …}``, and prints how many seconds the
delivery took. Without a command there is no queue: sending the list is the delivery.
"""

from __future__ import annotations

import json
import sys
from contextlib import redirect_stdout
from io import StringIO
from time import perf_counter
from typing import Any

import django
from django.conf import settings

#: About what a notification of a web site has: 2 kB.
BODY = "A line of the body of this message, as plain as can be.\r\n" * 35


def main(task: dict[str, Any]) -> float:
    """Give the seconds."""
    settings.configure(**task["settings"])
    django.setup()

    from django.core import mail
    from django.core.management import call_command

    call_command("migrate", verbosity=0)
    messages = [
        mail.EmailMessage(f"Message {number}", BODY, "shop@example.org", [f"reader{number}@example.org"])
        for number in range(task["messages"])
    ]
    connection = mail.get_connection()
    if task["command"]:
        connection.send_messages(messages)
    start = perf_counter()
    if task["command"]:
        call_command(task["command"])
    else:
        connection.send_messages(messages)
    return perf_counter() - start


if __name__ == "__main__":
    with redirect_stdout(StringIO()):  # 0.1.2 prints its summary
        seconds = main(json.load(sys.stdin))
    print(seconds)
