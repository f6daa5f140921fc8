"""What the rows say."""

from __future__ import annotations

import asyncio
from datetime import datetime, timedelta

from django.db import transaction
from django.test import override_settings
from django.utils import timezone

from mailqueue_backend.history import receivers
from tests.smtp import always, by_recipient

from .base import HISTORY, HistoryCase


class RecordingContract(HistoryCase):
    """One row for each recipient, with its own status."""

    def test_queued(self) -> None:
        self.send("a@example.com", "b@example.com")
        self.assertEqual(self.statuses(), {"a@example.com": "queued", "b@example.com": "queued"})
        row = self.rows.first()
        self.assertEqual((row.subject, row.attempts, row.reply, row.settled), ("Your order", 0, "", None))
        self.assertRegex(f"{row.mail_id} {row.message_id}", r"^[0-9a-f]{12} <.+@.+>$")

    def test_accepted(self) -> None:
        self.send()
        queued = self.rows.get().queued
        self.drain(always("dot", "250 2.0.0 Ok: queued as 4Xy"))
        row = self.rows.get()
        self.assertEqual(
            (row.status, row.reply, row.error, row.attempts), ("accepted", "250 2.0.0 Ok: queued as 4Xy", "", 1)
        )
        self.assertEqual(row.queued, queued)
        self.assertGreaterEqual(row.settled, queued)

    def test_refused_for_now_and_accepted_later(self) -> None:
        self.send()
        self.drain(always("dot", "451 4.3.0 later"))
        row = self.rows.get()
        self.assertEqual((row.status, row.reply, row.attempts, row.settled), ("waiting", "451 4.3.0 later", 1, None))
        self.drain()
        row = self.rows.get()
        self.assertEqual((row.status, row.error, row.attempts), ("accepted", "", 2))
        self.assertEqual(row.message_id, self.stored[0].message["Message-ID"])

    def test_partly_accepted(self) -> None:
        self.send("a@example.com", "b@example.com", "c@example.com")
        self.drain(by_recipient({"b@example.com": "450 4.2.2 full", "c@example.com": "550 5.1.1 unknown"}))
        self.assertEqual(
            self.statuses(), {"a@example.com": "accepted", "b@example.com": "waiting", "c@example.com": "given up"}
        )
        self.assertEqual(self.rows.get(address="b@example.com").reply, "450 4.2.2 full")
        self.assertEqual(self.rows.get(address="c@example.com").reply, "550 5.1.1 unknown")
        first = self.rows.get(address="a@example.com").changed
        self.drain()
        self.assertEqual(self.statuses()["b@example.com"], "accepted")
        self.assertEqual(self.rows.get(address="a@example.com").changed, first)

    def test_given_up(self) -> None:
        self.send()
        self.drain(always("dot", "451 4.3.0 later"), expire=0)
        self.assertEqual(self.statuses(), {"to@example.com": "given up"})

    def test_set_aside(self) -> None:
        self.send()
        with override_settings(SECRET_KEY="another key"):
            self.drain()
        row = self.rows.get()
        self.assertEqual(row.status, "set aside")
        self.assertIn("not signed", row.error)

    def test_message_that_was_queued_without_the_history(self) -> None:
        receivers.disconnect()
        self.send()
        receivers.connect()
        self.drain()
        self.assertEqual(self.statuses(), {"to@example.com": "accepted"})
        self.assertLess(timezone.now() - self.rows.get().queued, timedelta(seconds=10))

    def test_repeated_signal_makes_no_second_row(self) -> None:
        for _ in range(2):
            self.record("a@example.com", "b@example.com", "a@example.com")
        self.assertEqual(self.rows.count(), 2)

    def test_accepted_message_stays_accepted_when_a_copy_is_refused(self) -> None:
        self.record("a@example.com")
        self.record("a@example.com", recipients=[], refused={"a@example.com": "550 5.7.1 seen before"})
        self.assertEqual(self.statuses(), {"a@example.com": "accepted"})
        self.record("a@example.com", recipients=[], reasons={"a@example.com": "451 later"}, id="ba9876543210")
        self.assertEqual(self.statuses(), {"a@example.com": "waiting"})

    def test_sender_that_is_slower_than_the_drain_changes_nothing(self) -> None:
        self.record("a@example.com")
        with self.assertNoLogs(HISTORY):
            self.send("a@example.com", headers={"Message-ID": "<a@example.com>"})
        self.assertEqual(self.statuses(), {"a@example.com": "accepted"})

    def test_a_group_takes_one_statement(self) -> None:
        with self.assertNumQueries(3, using=self.alias) as captured:  # with BEGIN and COMMIT
            self.record(*(f"{number}@example.com" for number in range(8)))
        self.assertEqual(len([query for query in captured if "INSERT" in query["sql"]]), 1)

    def test_addresses_are_bare_with_the_domain_in_lower_case(self) -> None:
        self.send("Ann <Ann@EXAMPLE.com>", "mail@Exämple.com")
        self.drain()
        self.assertEqual(self.statuses(), {"Ann@example.com": "accepted", "mail@xn--exmple-cua.com": "accepted"})

    def test_message_without_message_id_or_with_a_long_one_has_its_id_instead(self) -> None:
        for message_id in ("", f"<{'a' * 300}@example.com>"):
            self.record("a@example.com", message_id=message_id)
            self.assertEqual(self.rows.get().message_id, "0123456789ab")

    def test_long_and_unprintable_texts_are_cut(self) -> None:
        event = self.event("a@example.com", reply="250 \0\udcff" + "é" * 9000)
        event.message.subject = "é" * 900
        receivers.record([event])
        row = self.rows.get()
        self.assertEqual((row.subject, row.reply[:7], len(row.reply)), ("é" * 255, "250 \ufffd?é", 1000))

    def test_emoji_are_replaced_only_where_they_cannot_be_stored(self) -> None:
        events = [self.event("a@example.com"), self.event("b@example.com")]
        events[0].message.subject = "😀é"
        receivers.record(events)
        self.assertEqual(self.rows.count(), 2)
        self.assertIn(self.rows.get(address="a@example.com").subject, ("😀é", "?é"))

    @override_settings(MAIL_QUEUE_HISTORY_SUBJECTS=False)
    def test_subjects_can_be_left_out(self) -> None:
        self.send()
        self.drain()
        self.assertEqual(self.rows.get().subject, "")

    def test_no_body(self) -> None:
        self.send()
        self.drain()
        self.assertNotIn("Body", str(self.rows.values().get()))

    def test_send_that_is_rolled_back_leaves_no_row(self) -> None:
        with transaction.atomic(using=self.alias):
            self.send("a@example.com")
            transaction.set_rollback(True, using=self.alias)
        with transaction.atomic(using=self.alias):
            self.send("b@example.com")
        self.assertEqual(self.statuses(), {"b@example.com": "queued"})

    def test_send_in_an_event_loop(self) -> None:
        async def view() -> None:
            self.send()

        asyncio.run(view())
        self.assertEqual(self.statuses(), {"to@example.com": "queued"})

    @override_settings(USE_TZ=False)
    def test_without_time_zones(self) -> None:
        self.send()
        self.drain()
        self.assertLess(abs(datetime.now() - self.rows.get().queued), timedelta(seconds=10))
