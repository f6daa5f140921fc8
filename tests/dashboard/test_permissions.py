"""What users with each permission see and may do; without read_messages, nothing of a message."""

from __future__ import annotations

import time
from unittest import mock

from django.contrib.auth.models import Permission

from mailqueue_backend.dashboard import tokens
from mailqueue_backend.queues.paused import paused_reason
from tests.cases import message

from .cases import SECRETS, DashboardTestCase, make_user, payload

ERROR = "550 5.1.1 <clerk@example.com> shop@example.org rejected: Reset your password"


class OwnPermissionsTests(DashboardTestCase):
    def test_there_are_three(self) -> None:
        found = Permission.objects.filter(content_type__app_label="mailqueue_dashboard")
        self.assertEqual(
            set(found.values_list("codename", flat=True)), {"view_queue", "read_messages", "act_on_messages"}
        )

    def test_a_user_without_them_sees_nothing(self) -> None:
        self.fill()
        token = self.token()
        for permissions in ((), ("read_messages", "act_on_messages")):
            self.client.force_login(make_user(*permissions, name=str(len(permissions))))
            self.assertNotContains(self.client.get("/admin/"), "Mail queues")
            for view, *args in (("changelist",), ("messages", "MAIL_QUEUE", "due"), ("message", "MAIL_QUEUE", token)):
                self.get(view, *args, status=403)

    def test_anonymous_users_must_log_in(self) -> None:
        self.client.logout()
        self.get("changelist", status=302)


class ViewerTests(DashboardTestCase):
    permissions = ("view_queue",)

    def setUp(self) -> None:
        super().setUp()
        self.fill(payload(attempts=2, last_error=ERROR.removesuffix(": Reset your password")))

    def test_sees_figures_and_errors_without_addresses(self) -> None:
        for page in (self.get("changelist"), self.get("messages", "MAIL_QUEUE", "due")):
            self.assertContains(page, "550 5.1.1 [address] [address] rejected")
            for secret in SECRETS:
                self.assertNotContains(page, secret)
        self.assertContains(self.get("messages", "MAIL_QUEUE", "due"), "0123456789ab")

    def test_the_rows_hold_nothing_that_a_template_could_show(self) -> None:
        (row,) = self.listed()
        self.assertEqual((row.sender, row.recipients, row.subject), ("", "", ""))

    def test_cannot_search_read_or_act(self) -> None:
        page = self.get("messages", "MAIL_QUEUE", "due", q="nobody")
        self.assertEqual(len(page.context["page"].rows), 1)
        self.assertNotContains(page, 'role="search"')
        self.assertNotContains(page, 'type="checkbox"')
        token = self.token()
        for view, *args in (("message", token), ("html", token), ("attachment", token, 0)):
            self.get(view, "MAIL_QUEUE", *args, status=403)
        for verb in ("pause", "resume"):
            self.assertEqual(self.client.post(self.url(verb, "MAIL_QUEUE"), {"confirmed": "1"}).status_code, 403)
        self.assertEqual(self.act("discard", message=token).status_code, 403)
        self.assertEqual((self.queue.counts().due, paused_reason(self.queue)), (1, None))


class ReaderTests(DashboardTestCase):
    permissions = ("view_queue", "read_messages")

    def test_sees_everything_and_cannot_act(self) -> None:
        self.fill(payload(last_error=ERROR))
        self.assertContains(self.get("messages", "MAIL_QUEUE", "due", q="clerk@"), "Reset your password")
        response = self.opened()
        for secret in SECRETS:
            self.assertContains(response, secret)
        self.assertNotContains(response, 'name="action"')
        self.assertEqual(self.act("discard", message=self.token()).status_code, 403)

    def test_parts_are_for_the_user_who_has_opened_the_message(self) -> None:
        self.fill()
        part = self.opened().context["part"]
        self.client.force_login(make_user(*self.permissions, name="another"))
        self.get("attachment", "MAIL_QUEUE", part, 0, status=404)

    def test_parts_can_be_loaded_for_an_hour(self) -> None:
        email = message()
        email.attach("a.txt", "text", "text/plain")
        self.fill(payload(email))
        part = self.opened().context["part"]
        for seconds, status in ((tokens.PARTS_VALID - 60, 200), (tokens.PARTS_VALID + 60, 404)):
            later = mock.patch("django.core.signing.time.time", return_value=time.time() + seconds)
            with later:
                self.get("attachment", "MAIL_QUEUE", part, 0, status=status)


class ActorTests(DashboardTestCase):
    permissions = ("view_queue", "act_on_messages")

    def test_acts_without_reading(self) -> None:
        self.fill(payload(last_error=ERROR), state="dead")
        token = self.token("dead")
        url = self.url("act", "MAIL_QUEUE", "dead")
        asked = self.client.post(url, {"action": "revive", "message": token})
        self.assertContains(asked, "Revive 1 dead message?")
        for page in (asked, self.act("revive", "dead", message=token)):
            for secret in SECRETS[1:]:
                self.assertNotContains(page, secret)
        self.assertEqual(self.queue.counts().due, 1)
        self.get("message", "MAIL_QUEUE", self.token(), status=403)
