"""The pages of the history in the admin; tests/process/test_history.py runs these tests with settings of their own."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.contrib.auth.models import Permission, User
from django.core import checks
from django.db import connection
from django.test import TestCase
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone

from mailqueue_backend.history.models import Recipient

LIST = reverse("admin:mailqueue_history_recipient_changelist")


class PageCase(TestCase):
    """A clerk who may view the history, and three recipients."""

    def setUp(self) -> None:
        clerk = User.objects.create_user("clerk", is_staff=True)
        clerk.user_permissions.add(Permission.objects.get(codename="view_recipient"))
        self.client.force_login(clerk)
        self.ann = self.add("Ann@example.com", "<1@shop>", "accepted", reply="250 2.0.0 Ok: queued as 4Xy")
        self.bob = self.add("bob@example.com", "<1@shop>", "waiting", error="connection refused")
        self.eve = self.add("eve@example.com", "<2@shop>", "queued", mail_id="ba9876543210")

    def add(self, address: str, message_id: str, status: str, **fields: Any) -> Recipient:
        now = timezone.now()
        fields = {"mail_id": "0123456789ab", "queued": now, "changed": now, **fields}
        return Recipient.objects.create(
            address=address, message_id=message_id, status=status, subject=f"Order of {address}", **fields
        )

    def found(self, **query: str) -> list[Recipient]:
        response = self.client.get(LIST, query)
        self.assertEqual(response.status_code, 200)
        return list(response.context["cl"].result_list)


class ListTests(PageCase):
    def test_shows_what_became_of_a_mail(self) -> None:
        response = self.client.get(LIST)
        for text in ("Order of Ann@example.com", "accepted by the server", "250 2.0.0 Ok: queued as 4Xy"):
            self.assertContains(response, text)
        self.assertContains(response, "waiting for the next attempt")
        self.assertContains(response, "connection refused")
        self.assertNotContains(response, "delivered")

    def test_newest_is_first(self) -> None:
        self.assertEqual(self.found(), [self.eve, self.bob, self.ann])

    def test_search_finds_address_message_id_and_id(self) -> None:
        for term, rows in (
            ("bob@example.com", [self.bob]),
            (" BOB@Example.com ", [self.bob]),
            ("Ann Smith <Ann@EXAMPLE.com>", [self.ann]),
            ("<1@shop>", [self.bob, self.ann]),
            ("2@shop", [self.eve]),
            ("ba9876543210", [self.eve]),
            ("example.com", []),
            (" ", [self.eve, self.bob, self.ann]),
        ):
            with self.subTest(term):
                self.assertEqual(self.found(q=term), rows)

    def test_search_uses_indexes(self) -> None:
        with CaptureQueriesContext(
            connection,
        ) as queries:
            self.found(q="bob@example.com")
        (sql,) = (query["sql"] for query in queries if "ORDER BY" in query["sql"])
        with connection.cursor() as cursor:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}")
            plan = str(cursor.fetchall())
        self.assertIn("mailqueue_history_address", plan)
        self.assertNotIn("SCAN", plan)

    def test_filters(self) -> None:
        Recipient.objects.filter(pk=self.ann.pk).update(queued=timezone.now() - timedelta(days=3))
        self.assertEqual(self.found(status__exact="accepted"), [self.ann])
        self.assertEqual(self.found(queued__gte=str(timezone.now() - timedelta(days=1))), [self.eve, self.bob])

    def test_number_of_queries_does_not_grow(self) -> None:
        with CaptureQueriesContext(connection) as few:
            self.client.get(LIST)
        for number in range(50):
            self.add(f"{number}@example.com", "<3@shop>", "accepted")
        with self.assertNumQueries(len(few)):
            self.client.get(LIST)


class AccessTests(PageCase):
    def test_the_page_of_a_recipient_can_only_be_read(self) -> None:
        page = reverse("admin:mailqueue_history_recipient_change", args=[self.ann.pk])
        response = self.client.get(page)
        self.assertContains(response, "250 2.0.0 Ok: queued as 4Xy")
        self.assertNotContains(response, 'name="_save"')
        self.assertEqual(self.client.post(page, {"status": "queued"}).status_code, 403)

    def test_nobody_adds_changes_or_deletes(self) -> None:
        self.client.force_login(User.objects.create_superuser("root"))
        page = reverse("admin:mailqueue_history_recipient_change", args=[self.ann.pk])
        for url in (reverse("admin:mailqueue_history_recipient_add"), page.replace("change", "delete")):
            self.assertEqual(self.client.get(url).status_code, 403)
        self.assertEqual(self.client.post(page, {"status": "queued"}).status_code, 403)
        self.assertNotContains(self.client.get(LIST), "delete_selected")

    def test_without_the_permission_nothing_is_shown(self) -> None:
        self.client.force_login(User.objects.create_user("other", is_staff=True))
        self.assertEqual(self.client.get(LIST).status_code, 403)
        self.assertNotContains(self.client.get(reverse("admin:index")), LIST)

    def test_the_admin_passes_its_checks(self) -> None:
        self.assertEqual([str(found) for found in checks.run_checks() if "history" in str(found)], [])
