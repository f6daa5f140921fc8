"""The dashboard on a Redis queue, whose lists have no ids: pages, a message that moves, and the actions."""

from __future__ import annotations

from uuid import uuid4

from django.contrib.admin.utils import quote
from django.test import override_settings

from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue
from tests import services
from tests.cases import message
from tests.dashboard.cases import DashboardTestCase, payload


@services.needs("Redis", services.redis_answers())
class DashboardOnRedisTests(DashboardTestCase):
    def setUp(self) -> None:
        self.queue_name = f"{services.PREFIX}_{uuid4().hex[:8]}"
        changed = override_settings(QUEUE_BACKEND="mailqueue_backend.queues.redis", MAIL_QUEUE_NAME=self.queue_name)
        changed.enable()
        self.addCleanup(changed.disable)
        self.addCleanup(self.empty)
        super().setUp()

    @property
    def queue(self) -> MessageQueue:
        return open_queue(self.queue_name)

    def empty(self) -> None:
        queue = self.queue
        queue._server.client.delete(*queue._keys)  # type: ignore[attr-defined]

    def url(self, view: str, *args: object) -> str:
        return super().url(view, *[quote(self.queue_name) if each == "MAIL_QUEUE" else each for each in args])

    def test_pages_follow_each_other_while_the_head_is_delivered(self) -> None:
        self.fill(*[payload(message(f"Number {number:03}"), id=f"{number:012x}") for number in range(120)])
        first = self.get("messages", "MAIL_QUEUE", "due").context["page"]
        self.queue.read_many(30)
        second = self.get("messages", "MAIL_QUEUE", "due", after=first.next).context["page"]
        self.assertEqual([int(row.id, 16) for row in second.rows], list(range(50, 100)))
        self.queue.read_many(40)  # the last one of the first page, too
        self.assertContains(self.get("message", "MAIL_QUEUE", second.rows[30].token), "Number 080")

    def test_actions_on_messages_in_each_state(self) -> None:
        for action, state in (("retry", "deferred"), ("revive", "dead"), ("discard", "due")):
            self.fill(state=state)
            self.assertContains(self.act(action, state, message=self.token(state)), "1 message")
            self.assertEqual(self.queue.counts()._replace(waiting=0, due=0), (0, 0, 0, 0, 0))
        self.assertEqual((self.queue.counts().due, len(self.logged()), len(self.log_lines())), (2, 3, 1))

    def test_a_reserved_message_is_shown_and_not_acted_on(self) -> None:
        self.fill(state="reserved")
        self.assertEqual(self.opened("reserved").context["state"], "reserved")
        self.assertEqual(self.act("discard", "reserved", message=self.token("reserved")).status_code, 404)
