"""The page of all queues, and pausing them."""

from __future__ import annotations

from unittest import mock, skipUnless

from django.core import mail
from django.test import override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.database.queue import Queue
from mailqueue_backend.queues.paused import pause, paused_reason
from tests.cases import BACKEND as BACKEND_CLASS

from .cases import DashboardTestCase, payload


class QueuesPageTests(DashboardTestCase):
    def test_is_reached_from_the_index_of_the_admin(self) -> None:
        self.assertContains(self.client.get("/admin/"), f'href="{self.url("changelist")}"')
        self.assertContains(self.client.get("/admin/mailqueue_dashboard/"), "Queues")

    def test_counts_the_messages_in_each_state(self) -> None:
        self.fill(payload(), payload(), state="dead")
        self.fill(payload(), state="deferred")
        self.fill(payload(), payload(), payload())
        (row,) = self.get("changelist").context["queues"]
        self.assertEqual(tuple(row["counts"]), (4, 3, 1, 0, 2))
        self.assertIn("day", row["oldest"])

    def test_shows_the_last_error_and_the_warnings(self) -> None:
        self.fill(payload(last_error="450 4.2.1 busy"))
        with mock.patch.object(Queue, "warnings", return_value=["Not <safe>."]):
            response = self.get("changelist")
        self.assertContains(response, "450 4.2.1 busy")
        self.assertContains(response, "Not &lt;safe&gt;.")

    def test_shows_a_pause_and_its_reason(self) -> None:
        pause(self.queue, "<b>moving</b>")
        self.assertContains(self.get("changelist"), "&lt;b&gt;moving&lt;/b&gt;")
        self.assertContains(self.get("changelist"), "Resume…")

    def test_a_queue_that_cannot_be_asked_is_shown_with_the_reason(self) -> None:
        for view, args in (("changelist", ()), ("messages", ("MAIL_QUEUE", "due"))):
            with mock.patch.object(Queue, "counts", side_effect=QueueUnavailable("No route to Redis.")):
                self.assertContains(self.get(view, *args), "No route to Redis.")

    @override_settings(EMAIL_BACKEND="django.core.mail.backends.locmem.EmailBackend")
    def test_a_site_without_queues_is_told_so(self) -> None:
        self.assertContains(self.get("changelist"), "nothing to deliver")

    @override_settings(QUEUE_BACKEND="dummy")
    def test_an_engine_that_cannot_list_shows_its_counts_and_a_sentence(self) -> None:
        self.queue.write(payload())
        for text in (self.text("changelist"), self.text("messages", "MAIL_QUEUE", "due")):
            self.assertIn("can only count its messages", text)
        self.assertEqual(self.get("changelist").context["queues"][0]["counts"].due, 1)
        self.queue.read()

    @override_settings(MAIL_QUEUE_NAME="a/b ?%_2F")
    def test_any_name_of_a_queue_works(self) -> None:
        self.queue.sibling("a/b ?%_2F").write(payload())
        response = self.get("changelist")
        url = self.url("messages", "a_2Fb _3F_25_5F2F", "due")
        self.assertContains(response, url)
        self.assertContains(self.client.get(url), "0123456789ab")

    def test_an_unknown_queue_or_state_is_not_found(self) -> None:
        self.get("messages", "OTHER", "due", status=404)
        self.get("messages", "MAIL_QUEUE", "sent", status=404)

    @skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
    def test_the_queue_of_each_mailer_is_shown(self) -> None:
        default = {"BACKEND": BACKEND_CLASS, "OPTIONS": {"host": "127.0.0.1"}}
        news = {"BACKEND": BACKEND_CLASS, "OPTIONS": {"host": "127.0.0.1", "queue": "NEWS"}}
        with override_settings(MAILERS={"default": default, "news": news}):
            names = [row["name"] for row in self.get("changelist").context["queues"]]
        self.assertEqual(names, ["MAIL_QUEUE", "NEWS"])


class PauseTests(DashboardTestCase):
    def test_pausing_asks_for_a_reason_and_is_logged(self) -> None:
        url = self.url("pause", "MAIL_QUEUE")
        self.assertContains(self.client.post(url), 'name="reason"')
        self.assertIsNone(paused_reason(self.queue))
        response = self.client.post(url, {"confirmed": "yes", "reason": "provider moves"}, follow=True)
        self.assertContains(response, "Paused: provider moves")
        self.assertEqual(paused_reason(self.queue), "provider moves")
        self.assertEqual(self.logged(), ["MAIL_QUEUE: Paused: provider moves"])

    def test_resuming_asks_and_is_logged(self) -> None:
        pause(self.queue, "")
        url = self.url("resume", "MAIL_QUEUE")
        self.assertContains(self.client.post(url), "Resume MAIL_QUEUE?")
        self.assertEqual(paused_reason(self.queue), "")
        self.client.post(url, {"confirmed": "yes"})
        self.assertIsNone(paused_reason(self.queue))
        self.assertEqual(self.logged(), ["MAIL_QUEUE: Resumed."])

    def test_actions_are_refused_by_get_and_without_a_csrf_token(self) -> None:
        self.get("pause", "MAIL_QUEUE", status=405)
        self.client.handler.enforce_csrf_checks = True
        self.assertEqual(self.client.post(self.url("pause", "MAIL_QUEUE"), {"confirmed": "yes"}).status_code, 403)
        self.assertIsNone(paused_reason(self.queue))
