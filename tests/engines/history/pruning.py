"""Rows are deleted after MAIL_QUEUE_HISTORY_DAYS."""

from __future__ import annotations

from datetime import timedelta
from unittest import mock

from django.test import override_settings
from django.utils import timezone

from mailqueue_backend.history import receivers, statements
from mailqueue_backend.history.models import Recipient
from mailqueue_backend.history.statements import prune

from .base import HistoryCase


class PruningContract(HistoryCase):
    def add(self, number: int, days: float) -> None:
        """Add rows that were changed so many days ago."""
        then = timezone.now() - timedelta(days=days)
        self.rows.bulk_create(
            Recipient(address=f"{each}@example.com", message_id=f"{days}", status="accepted", queued=then, changed=then)
            for each in range(number)
        )

    def test_deletes_what_has_not_changed_for_so_long(self) -> None:
        self.add(3, days=30.1)
        self.add(2, days=29.9)
        self.assertEqual((prune(), self.rows.count()), (3, 2))
        with override_settings(MAIL_QUEUE_HISTORY_DAYS=10**10):
            self.assertEqual((prune(), self.rows.count()), (0, 2))
        with override_settings(MAIL_QUEUE_HISTORY_DAYS=1):
            self.assertEqual((prune(), self.rows.count()), (2, 0))

    def test_deletes_in_steps_up_to_the_limit(self) -> None:
        self.add(7, days=40)
        with mock.patch.object(statements, "STEP", 2):
            self.assertEqual((prune(limit=3), self.rows.count()), (3, 4))
            self.assertEqual((prune(), self.rows.count()), (4, 0))
        self.assertEqual(prune(limit=0), 0)

    def test_each_drain_deletes_some_even_if_no_message_is_due(self) -> None:
        self.add(3, days=40)
        with mock.patch.object(receivers, "PRUNED_BY_DRAIN", 2):
            self.drain()
        self.assertEqual(self.rows.count(), 1)

    def test_finds_the_rows_by_an_index(self) -> None:
        self.add(2000, days=1)
        self.add(1, days=40)
        with self.connection.cursor() as cursor:
            cursor.execute("ANALYZE" if self.alias != "mariadb" else f"ANALYZE TABLE {Recipient._meta.db_table}")
        old = self.rows.filter(changed__lt=timezone.now() - timedelta(days=30)).order_by("changed")
        self.assertIn("mailqueue_history_changed", old.values_list("pk")[:500].explain())
