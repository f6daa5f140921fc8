"""Queue and deliver mail of each kind and show what arrives; then show a server that is down and an expired message.

``python example/demo.py`` starts its own SMTP server. If EMAIL_HOST names a server, and DEMO_TO the recipient, it
delivers to that server. EMAIL_PORT, EMAIL_HOST_USER, EMAIL_HOST_PASSWORD, EMAIL_USE_TLS, EMAIL_USE_SSL and
DEFAULT_FROM_EMAIL have Django's meaning. The exit status is 1 if a check fails.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from servers import LoopbackServer, NamedServer, Received

MANAGE = Path(__file__).resolve().parent / "manage.py"


class Demo:
    """Five scenes; each checks what it shows."""

    def __init__(self, directory: str) -> None:
        """Configure the site's directory and mail server through the environment."""
        os.environ.update(EXAMPLE_DIRECTORY=directory, DJANGO_SETTINGS_MODULE="postbox.settings")
        os.environ.pop("MAIL_QUEUE_EXPIRE", None)
        self.discard_log = Path(directory, "discards.log")
        self.server: LoopbackServer | NamedServer
        if os.environ.get("EMAIL_HOST"):
            expect(bool(os.environ.get("DEMO_TO")), "EMAIL_HOST is set, so DEMO_TO must be your e-mail address")
            self.server = NamedServer()
        else:
            self.server = LoopbackServer()
        self.recipient = os.environ.get("DEMO_TO") or "visitor@example.com"

    def run(self) -> None:
        """Play the scenes."""
        start_site()
        self.server.start()
        try:
            self.queue_by_a_request()
            self.deliver()
            self.fail_and_requeue()
            self.deliver_the_requeued()
            self.expire()
        finally:
            self.server.stop()

    def queue_by_a_request(self) -> None:
        """Submit the page's form, as a browser set to German does."""
        from django.test import Client
        from postbox.messages import one_of_each_kind

        headline("A visitor submits the form: each message is stored, and no SMTP server is contacted")
        browser = Client(SERVER_NAME="localhost", HTTP_ACCEPT_LANGUAGE="de")
        expect(browser.post("/", {"to": self.recipient}).status_code == 302, "the form is accepted")
        page = browser.get("/").content.decode()
        print("The page says:", *re.findall(r"\d+ messages? in the queue\.", page))
        expect(waiting() == len(one_of_each_kind(self.recipient)), "all messages wait in the queue")

    def deliver(self) -> None:
        """Drain the queue and check what arrived."""
        headline(f"process_mail_queue delivers to {self.server.name}")
        count = waiting()
        drain(f"{count} messages sent and 0 messages discarded out of {count} messages.")
        expect(waiting() == 0, "the queue is empty")
        if self.server.received is None:
            print(f"What arrived is in the mailbox of {self.recipient}.")
            return
        print(*self.server.received, sep="\n")
        expect(len(self.server.received) == count, "each message arrived once")
        expect_each_kind({received.subject: received for received in self.server.received})

    def fail_and_requeue(self) -> None:
        """Drain while the server is down."""
        headline("The server is down: the message goes back to the queue")
        self.server.stop()
        self._send("Kept while the server is down")
        drain("0 messages sent and 0 messages discarded out of 1 message.")
        expect(waiting() == 1, "the message is in the queue again")

    def deliver_the_requeued(self) -> None:
        """Drain after the server is back."""
        headline("The server is back: the next run delivers it")
        self.server.start()
        drain("1 message sent and 0 messages discarded out of 1 message.")
        if self.server.received is not None:
            print(self.server.received[-1])
            expect(self.server.received[-1].subject == "Kept while the server is down", "it arrived")

    def expire(self) -> None:
        """Drain while the server is down and every message is too old."""
        headline("The server is down and the message is too old (MAIL_QUEUE_EXPIRE=0): it goes to the discard log")
        self.server.stop()
        self._send("Given up")
        drain("0 messages sent and 1 message discarded out of 1 message.", MAIL_QUEUE_EXPIRE="0")
        line = self.discard_log.read_text(encoding="utf-8")
        print(f"{self.discard_log.name}: {line}", end="")
        expect("Subject: Given up" in line and line.count("\n") == 1, "the discard log has one line about it")
        expect(waiting() == 0, "the queue is empty")

    def _send(self, subject: str) -> None:
        from django.core.mail import send_mail

        send_mail(subject=subject, message="Hello.\n", from_email=None, recipient_list=[self.recipient])


def expect_each_kind(received: dict[str, Received]) -> None:
    """Check the distinctive content of each kind of message."""
    expect("A line of plain text." in received["Plain text"].text, "the text arrived")
    expect("image/png <logo>" in received["HTML with an inline image"].parts, "the HTML has its image")
    expect("text/csv Übersicht.csv" in received["An attachment"].parts, "the attachment keeps its name")
    expect("👋" in received["Grüße, 你好, привет"].text, "other alphabets survive")
    blind = received["A blind copy"]
    expect(blind.recipients[0] not in str(blind.message), "no header names the recipient of a blind copy")
    expect(
        any("Herzlichen Glückwunsch" in subject for subject in received), "a lazy subject is in the visitor's German"
    )


def start_site() -> None:
    """Load the example site in this process and create its tables."""
    import django

    print(f"Django {django.get_version()} on Python {sys.version.split()[0]}")
    django.setup()
    manage("migrate", "--verbosity=0")


def waiting() -> int:
    """Count the messages in the queue."""
    from mailqueue_backend.mail.smtp import QueuedEmailBackend

    return len(QueuedEmailBackend().que)


def drain(expected: str, **environment: str) -> None:
    """Run process_mail_queue in a separate process, as cron does, and check its summary."""
    result = manage("process_mail_queue", **environment)
    for line in result.stderr.splitlines()[:1]:  # a traceback follows
        print("stderr:", line)
    print("stdout:", result.stdout, end="")
    expect(result.stdout == expected + "\n", f"the summary is: {expected}")
    print("Waiting in the queue:", waiting())


def manage(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run manage.py, with the warning filters of this process."""
    filters = [f"-W{option}" for option in sys.warnoptions]
    result = subprocess.run(
        [sys.executable, *filters, str(MANAGE), *arguments],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environment},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    expect(result.returncode == 0, f"manage.py {arguments[0]} ends with 0\n{result.stderr}")
    return result


def headline(title: str) -> None:
    """Print the title of a scene."""
    print(f"\n== {title}")


def expect(is_met: bool, expectation: str) -> None:
    """End the demo with an error if an expectation is not met."""
    if not is_met:
        raise SystemExit(f"demo.py: expected, but not met: {expectation}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")
    with TemporaryDirectory(prefix="mailqueue-demo-") as temporary:
        Demo(temporary).run()
    print("\nAll checks passed.")
