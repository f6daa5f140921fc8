"""Base classes: users with each permission, and a queue with messages."""

from __future__ import annotations

import re
from typing import Any

from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission, User
from django.urls import reverse

from mailqueue_backend.envelope import META_KEY, Envelope, dumps
from mailqueue_backend.queues.base import Settlement
from tests.cases import QueueTestCase, message
from tests.unit.test_inspection_messages import CREATED

#: What the messages of these tests contain, and a user without read_messages must never see.
SECRETS = ("Reset your password", "clerk@example.com", "shop@example.org", "code 4711")


def make_user(*codenames: str, name: str = "somebody") -> User:
    user = User.objects.create_user(name, is_staff=True)
    user.user_permissions.set(Permission.objects.filter(codename__in=codenames))
    return user


def payload(email: Any = None, **meta: Any) -> bytes:
    if email is None:
        email = message("Reset your password", ["clerk@example.com"])
        email.from_email, email.body = "shop@example.org", "Your code 4711"
    return dumps(Envelope(email, CREATED, {META_KEY: {"id": "0123456789ab", **meta}}))


class DashboardTestCase(QueueTestCase):
    """Logged in as a superuser, beside a queue in the database."""

    permissions: tuple[str, ...] | None = None

    def setUp(self) -> None:
        super().setUp()
        self.log_in(*self.permissions) if self.permissions is not None else self.log_in_superuser()

    def log_in(self, *codenames: str) -> None:
        self.client.force_login(make_user(*codenames))

    def log_in_superuser(self) -> None:
        self.client.force_login(User.objects.create_superuser("root"))

    def fill(self, *payloads: bytes, state: str = "due") -> None:
        """Write payloads, or one, to a state."""
        payloads = payloads or (payload(),)
        self.queue.write_many(*payloads)
        if state == "due":
            return
        consumer = self.queue.consumer(600)
        taken = consumer.exchange(wanted=len(payloads)).reservations
        if state == "reserved":
            self.addCleanup(consumer.close)
        elif state == "dead":
            consumer.exchange([Settlement(each, "bury") for each in taken])
        else:
            consumer.exchange([Settlement(each, "release", None, 3600) for each in taken])

    def url(self, view: str, *args: Any) -> str:
        return reverse(f"admin:mailqueue_dashboard_queue_{view}", args=args)

    def get(self, view: str, *args: Any, status: int = 200, **query: str) -> Any:
        response = self.client.get(self.url(view, *args), query)
        self.assertEqual(response.status_code, status)
        return response

    def text(self, view: str, *args: Any, **query: str) -> str:
        """Return what a page shows, without its markup."""
        return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", self.get(view, *args, **query).content.decode()))

    def listed(self, state: str = "due", **query: str) -> list[Any]:
        """Return the rows of a list."""
        rows: list[Any] = self.get("messages", "MAIL_QUEUE", state, **query).context["page"].rows
        return rows

    def token(self, state: str = "due") -> str:
        """Return the token of the first message in a state."""
        token: str = self.listed(state)[0].token
        return token

    def opened(self, state: str = "due") -> Any:
        """Return the page of the first message in a state."""
        return self.get("message", "MAIL_QUEUE", self.token(state))

    def act(self, action: str, state: str = "due", **data: Any) -> Any:
        """Do what the page asks for, and return the page that follows."""
        url = self.url("act", "MAIL_QUEUE", state)
        return self.client.post(url, {"action": action, "confirmed": "yes", **data}, follow=True)

    def logged(self) -> list[str]:
        """Return the lines of the admin's log, oldest first."""
        return [f"{entry.object_repr}: {entry.change_message}" for entry in LogEntry.objects.order_by("pk")]
