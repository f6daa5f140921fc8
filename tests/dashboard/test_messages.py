"""The list of messages, the search, and the page of a message."""

from __future__ import annotations

from unittest import mock

from django.test import override_settings

from mailqueue_backend.dashboard import rows, tokens
from mailqueue_backend.envelope import sign
from tests.cases import message

from .cases import DashboardTestCase, payload

#: Queries of each page: the session and the user.
COMMON_QUERIES = 2


def numbered(count: int) -> list[bytes]:
    return [payload(message(f"Number {number:03}"), id=f"{number:012x}") for number in range(count)]


class ListTests(DashboardTestCase):
    def test_shows_the_messages_of_a_state(self) -> None:
        for state in ("dead", "deferred", "reserved", "due"):
            self.fill(payload(message(f"This is {state}"), attempts=2, last_error="450 busy"), state=state)
            text = self.text("messages", "MAIL_QUEUE", state)
            for expected in (f"This is {state}", "to@example.com", "0123456789ab", "450 busy", f"1 {state}"):
                self.assertIn(expected, text)
            self.assertEqual(len(self.listed(state)), 1)

    def test_pages_show_each_message_once_while_the_head_is_delivered(self) -> None:
        self.fill(*numbered(120))
        first = self.get("messages", "MAIL_QUEUE", "due").context["page"]
        self.queue.read_many(60)  # the last one of the first page, too
        second = self.get("messages", "MAIL_QUEUE", "due", after=first.next).context["page"]
        third = self.get("messages", "MAIL_QUEUE", "due", after=second.next).context["page"]
        ids = [int(row.id, 16) for page in (first, second, third) for row in page.rows]
        self.assertEqual(ids, [*range(50), *range(60, 120)])
        self.assertEqual(third.next, "")

    def test_a_page_takes_as_many_queries_whatever_is_in_it(self) -> None:
        self.fill(*numbered(200))
        with self.assertNumQueries(COMMON_QUERIES + 3):  # the counts, the first messages, the others
            self.get("messages", "MAIL_QUEUE", "due")

    def test_an_address_that_was_not_given_out_is_not_found(self) -> None:
        self.fill()
        token = self.token()
        for forged in ("1", token[:-1], tokens.token_for(self.queue.sibling("OTHER"), self.entry(), tokens.MESSAGE)):
            self.get("message", "MAIL_QUEUE", forged, status=404)
        self.get("messages", "MAIL_QUEUE", "due", status=404, after=token)
        self.get("html", "MAIL_QUEUE", token, status=404)

    def entry(self):  # type: ignore[no-untyped-def]
        return self.queue.browse("due", 1)[0]


class SearchTests(DashboardTestCase):
    def test_finds_by_recipient_sender_subject_id_and_message_id(self) -> None:
        email = message("Find me", ["Bob@Example.net"], headers={"Message-ID": "<77@shop>"})
        self.fill(payload(), payload(email, id="aaaaaaaaaaaa"), payload())
        for text in ("bob@example", "find ME", "aaaaaaaaaaaa", "<77@shop>", " from@example.com "):
            with self.subTest(text):
                self.assertEqual([row.subject for row in self.listed(q=text)], ["Find me"])
        self.assertEqual(self.listed(q="nobody"), [])

    def test_says_that_it_has_not_looked_at_all_messages_and_continues(self) -> None:
        self.fill(*numbered(30))
        with mock.patch.object(rows, "SEARCHED", 20):
            response = self.get("messages", "MAIL_QUEUE", "due", q="Number 025")
            self.assertContains(response, "The search has looked at 20 messages")
            page = response.context["page"]
            self.assertEqual(page.rows, [])
            self.assertEqual([row.subject for row in self.listed(q="Number 025", after=page.next)], ["Number 025"])

    def test_text_is_escaped(self) -> None:
        response = self.get("messages", "MAIL_QUEUE", "due", q='"><script>')
        self.assertNotContains(response, '"><script>')


class MessageTests(DashboardTestCase):
    def test_shows_headers_text_and_attachments(self) -> None:
        email = message("Your order", cc=["cc@example.com"])
        email.body = "Dear customer"
        email.attach("invoice.pdf", b"%PDF-1", "application/pdf")
        self.fill(payload(email, attempts=3, last_error="451 later"))
        response = self.opened()
        for text in ("Your order", "Dear customer", "invoice.pdf", "cc@example.com", "451 later", "application/pdf"):
            self.assertContains(response, text)

    def test_reading_is_logged_without_what_is_read(self) -> None:
        self.fill()
        self.opened()
        self.assertEqual(self.logged(), ["message 0123456789ab in MAIL_QUEUE: Read."])
        self.assertContains(self.client.get("/admin/"), "message 0123456789ab in MAIL_QUEUE")

    def test_a_message_that_cannot_be_opened_shows_why_and_nothing_else(self) -> None:
        with override_settings(SECRET_KEY="another one"):
            lost = payload()
        for stored, why in (
            (lost, "not signed with SECRET_KEY"),
            (sign(b"garbage"), "damaged at byte 0"),
        ):
            with self.subTest(why):
                self.fill(stored)
                response = self.opened()
                self.assertContains(response, why)
                self.assertNotContains(response, "Headers")
                self.assertNotContains(response, "code 4711")
                self.queue.read()

    def test_a_message_that_has_gone_is_said_to_be_gone(self) -> None:
        self.fill()
        token = self.token()
        self.queue.read()
        self.assertContains(self.get("message", "MAIL_QUEUE", token), "no longer where it was listed")
        self.assertEqual(self.logged(), [])

    def test_a_message_that_a_drain_has_reserved_meanwhile_is_shown_as_reserved(self) -> None:
        self.fill()
        token = self.token()
        with self.queue.consumer(600) as consumer:
            consumer.exchange(wanted=1)
            response = self.get("message", "MAIL_QUEUE", token)
        self.assertEqual(response.context["state"], "reserved")
        self.assertNotContains(response, 'name="action"')

    def test_looks_the_message_up_by_its_key(self) -> None:
        self.fill(*numbered(100))
        token = self.listed()[40].token
        with self.assertNumQueries(COMMON_QUERIES + 2), mock.patch.object(type(self.queue), "browse") as browse:
            self.get("message", "MAIL_QUEUE", token)  # the message, and its line in the log
        browse.assert_not_called()

    def test_opens_no_connection_to_a_mail_server(self) -> None:
        self.fill()
        with mock.patch("socket.socket.connect") as connect, mock.patch("socket.create_connection", connect):
            self.text("changelist")
            self.opened()
        connect.assert_not_called()
