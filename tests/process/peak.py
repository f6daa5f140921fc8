"""A process that enqueues or drains, and prints its peak memory: ``python -m tests.process.peak …``.

Started by measure(). Each measurement needs a new process, since Python does not return all memory to the system.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.engines.takers import WARNINGS

STATUS = Path("/proc/self/status")
MB = 1024 * 1024


def peak() -> int:
    """Return the peak memory of this process, in bytes."""
    (line,) = (line for line in STATUS.read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


def measure(action: str, amount: int, queue: str, backend: str, port: int) -> int:
    """Enqueue or drain in a child process; return its peak memory in bytes.

    ``amount`` is the number of messages or, if negative, the size in bytes of the attachment of a single message.
    """
    environ = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings", "TEST_EMAIL_PORT": str(port)}
    command = [sys.executable, *WARNINGS, "-m", "tests.process.peak", action, str(amount), queue, backend]
    done = subprocess.run(command, env=environ, text=True, capture_output=True, check=False)
    if done.returncode:
        raise AssertionError(done.stderr)
    return int(done.stdout)


def main(action: str, amount: int, queue: str, backend: str) -> None:
    import django
    from django.test import override_settings

    django.setup()
    with override_settings(MAIL_QUEUE_NAME=queue, QUEUE_BACKEND=backend or None):
        (enqueue if action == "enqueue" else drain)(amount)
    print(peak())


def enqueue(amount: int) -> None:
    from mailqueue_backend.mail.smtp import QueuedEmailBackend
    from tests.cases import message

    backend = QueuedEmailBackend()
    if amount < 0:
        backend.send_messages([with_attachment(message("big"), -amount)])
    for start in range(0, amount, 1000):
        backend.send_messages([message(f"{number}") for number in range(start, min(amount, start + 1000))])


def with_attachment(message: Any, size: int) -> Any:
    content = os.urandom(size) if size else b""
    message.attach("big.bin", content, "application/octet-stream")
    return message


def drain(amount: int) -> None:
    from mailqueue_backend.mail.smtp import QueuedEmailBackend

    backend = QueuedEmailBackend()
    result = backend.send_queued_messages()
    if result.sent != max(amount, 1):
        raise AssertionError(f"{result}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])
