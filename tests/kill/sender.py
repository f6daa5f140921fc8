"""A process that sends messages as a site does: ``python -m tests.kill.sender AMOUNT``. It also runs with 0.1.2.

Prints how many messages were accepted.
"""

from __future__ import annotations

import sys

import django
from django.core import mail

from tests.kill.ledger import body, subject


def main(amount: int) -> None:
    """Send the first half in one call, the others one by one."""
    messages = [
        mail.EmailMessage(subject(number), body(number), "from@example.com", [f"to{number}@example.com"])
        for number in range(amount)
    ]
    half = amount // 2
    # Django < 6.1: no mailers.
    backend = mail.mailers.default if hasattr(mail, "mailers") else mail.get_connection()
    accepted = backend.send_messages(messages[:half]) if half else 0
    for message in messages[half:]:
        accepted += message.send()
    print(accepted)


if __name__ == "__main__":
    django.setup()
    main(int(sys.argv[1]))
