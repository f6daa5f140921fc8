"""Interrupts drains at one line after the other: ``python -m tests.kill.interrupts``, with the queue "dummy".

A signal handler runs between any two lines of the main thread. Whatever lock that thread holds there, a handler
must not wait for. Each drain gets SIGTERM twice at another line of the package or of threading.py; what is in the
queue in the end and what was delivered must be what was queued. Prints how many lines were tried.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
import threading
from io import StringIO
from types import FrameType
from typing import Any

import django
from django.core.mail import EmailMessage
from django.core.management import call_command

from mailqueue_backend import delivery
from mailqueue_backend.mail.smtp import QueuedEmailBackend

_WHERE = (delivery.__path__[0], threading.__file__)
#: Seconds in which a drain that hangs is found out.
TIMEOUT = 20


DELIVERED: list[str] = []


def deliver(backend: QueuedEmailBackend, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
    """Deliver to a list."""
    DELIVERED.append(email_message.subject)
    return backend.SENT


class Interrupter:
    """A trace function that sends both signals at the n-th line."""

    def __init__(self, lines: int) -> None:
        self.left = lines

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(_WHERE):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
        return self


def interrupted(lines: int) -> bool:
    """Drain two messages with an interruption; False when the drain has not that many lines."""
    backend = QueuedEmailBackend()
    DELIVERED.clear()
    backend.send_messages([EmailMessage(subject, to=["to@example.com"]) for subject in "ab"])
    interrupter = Interrupter(lines)
    faulthandler.dump_traceback_later(TIMEOUT, exit=True)
    sys.settrace(interrupter)
    try:
        call_command("process_mail_queue", stdout=StringIO())
    except SystemExit:
        pass
    finally:
        sys.settrace(None)
        faulthandler.cancel_dump_traceback_later()
    left = len(backend.que.read_many(9))
    assert len(DELIVERED) + left == 2, (lines, DELIVERED, left)
    return interrupter.left <= 0


if __name__ == "__main__":
    django.setup()
    QueuedEmailBackend._send_queued_messages = deliver  # type: ignore[method-assign]
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    number = 1
    while interrupted(number):
        number += 1
    print(number - 1)
