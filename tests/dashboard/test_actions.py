"""Retry, discard and revive, for selected messages and for all in a state, with a drain beside."""

from __future__ import annotations

import logging
from typing import Any
from unittest import mock

from django.contrib.admin.models import LogEntry
from django.urls import resolve

from mailqueue_backend.dashboard.views import actions
from mailqueue_backend.envelope import sign

from .cases import DashboardTestCase, payload


def three() -> list[bytes]:
    return [payload(id=f"{digit * 12}") for digit in "abc"]


class SelectedTests(DashboardTestCase):
    def test_each_action_asks_first(self) -> None:
        for action, state in (("retry", "deferred"), ("discard", "due"), ("revive", "dead")):
            self.fill(state=state)
            before = self.queue.counts()
            data = {"action": action, "message": self.token(state)}
            response = self.client.post(self.url("act", "MAIL_QUEUE", state), data)
            self.assertContains(response, f"{action.capitalize()} 1 {state} message?")
            self.assertContains(response, "Reset your password")
            self.assertEqual((self.queue.counts(), self.logged()), (before, []))

    def test_retrying_makes_the_selected_message_due(self) -> None:
        self.fill(*three(), state="deferred")
        response = self.act("retry", "deferred", message=self.listed("deferred")[1].token)
        self.assertContains(response, "1 message retried.")
        self.assertEqual([row.id for row in self.listed()], ["b" * 12])
        self.assertEqual(self.logged(), [f"message {'b' * 12} in MAIL_QUEUE: Retried."])

    def test_discarding_writes_to_the_discard_log(self) -> None:
        self.fill(*three())
        rows = self.listed()
        self.act("discard", message=[rows[0].token, rows[2].token])
        self.assertEqual([row.id for row in self.listed()], ["b" * 12])
        self.assertEqual(len([line for line in self.log_lines() if "Message Discarded" in line]), 2)
        self.assertEqual({entry.object_id for entry in LogEntry.objects.all()}, {"a" * 12, "c" * 12})

    def test_reviving_returns_a_dead_message(self) -> None:
        self.fill(state="dead")
        self.act("revive", "dead", message=self.token("dead"))
        self.assertEqual(self.queue.counts().due, 1)
        self.assertEqual(self.logged(), ["message 0123456789ab in MAIL_QUEUE: Revived."])

    def test_what_cannot_be_opened_is_not_revived(self) -> None:
        self.fill(sign(b"garbage"), state="dead")
        self.assertContains(self.act("revive", "dead", message=self.token("dead")), "cannot be opened")
        self.assertEqual((self.queue.counts().dead, self.logged()), (1, []))

    def test_a_message_that_a_drain_has_reserved_since_it_was_listed_is_skipped(self) -> None:
        for action, state in (("retry", "deferred"), ("discard", "due")):
            self.fill(state=state)
            token = self.token(state)
            with self.queue.consumer(600) as consumer:
                consumer.take(self.queue.browse(state, 1)[0])  # type: ignore[arg-type]
                self.assertContains(self.act(action, state, message=token), "it is being delivered")
            self.assertEqual(self.logged(), [])
            self.queue.read()

    def test_a_message_that_a_drain_has_delivered_since_it_was_listed_is_skipped(self) -> None:
        self.fill()
        token = self.token()
        self.queue.read()
        self.assertContains(self.act("discard", message=token), "has left the queue")
        self.assertEqual(self.log_lines(), [])

    def test_a_discard_log_that_cannot_be_written_keeps_the_message(self) -> None:
        self.fill()
        quiet = mock.patch.object(logging, "raiseExceptions", False)
        with self.settings(MAIL_QUEUE_LOG_FILENAME="/nonexistent/discards.log"), quiet:
            response = self.act("discard", message=self.token())
        self.assertContains(response, "/nonexistent/discards.log")
        self.assertEqual((self.queue.counts().due, self.logged()), (1, []))

    def test_nothing_selected_is_said(self) -> None:
        data = {"action": "discard"}
        self.fill()
        response = self.client.post(self.url("act", "MAIL_QUEUE", "due"), data, follow=True)
        self.assertContains(response, "No message is selected")

    def test_an_action_that_does_not_fit_the_state_is_not_found(self) -> None:
        for action, state in (("revive", "due"), ("retry", "dead"), ("discard", "reserved"), ("burn", "due")):
            self.assertEqual(self.act(action, state, all="yes").status_code, 404)


class AllTests(DashboardTestCase):
    def test_all_in_one_state_and_no_other(self) -> None:
        self.fill(state="dead")
        self.fill(*three())
        asked = self.client.post(self.url("act", "MAIL_QUEUE", "due"), {"action": "discard", "all": "yes"})
        self.assertContains(asked, "Discard all 3 due messages?")
        self.assertContains(self.act("discard", all="yes"), "3 messages discarded.")
        self.assertEqual((self.queue.counts().due, self.queue.counts().dead), (0, 1))
        self.assertEqual(self.logged(), ["MAIL_QUEUE: Discarded 3 due messages."])

    def test_a_message_in_a_drain_is_left_alone(self) -> None:
        self.fill(*three())
        with self.queue.consumer(600) as consumer:
            consumer.exchange(wanted=1)
            self.act("discard", all="yes")
            self.assertEqual(self.queue.counts().reserved, 1)
        self.assertEqual(self.queue.counts().due, 1)

    def test_skipped_messages_are_named_up_to_a_number(self) -> None:
        self.fill(*[sign(b"garbage %d" % number) for number in range(12)], state="dead")
        response = self.act("revive", "dead", all="yes")
        self.assertContains(response, "cannot be opened", count=actions.SHOWN)
        self.assertContains(response, "Skipped: 2 more.")

    def test_ends_in_time_and_says_so(self) -> None:
        self.fill(*three())
        with mock.patch.object(actions, "TIME_LIMIT", -1):
            response = self.act("discard", all="yes")
        self.assertContains(response, "Repeat this for the other messages.")
        self.assertEqual((self.queue.counts().due, self.logged()), (2, ["MAIL_QUEUE: Discarded 1 due message."]))

    def test_each_message_is_settled_at_once_in_a_site_with_atomic_requests(self) -> None:
        view: Any = resolve(self.url("act", "MAIL_QUEUE", "due")).func
        self.assertIn("default", view._non_atomic_requests)
