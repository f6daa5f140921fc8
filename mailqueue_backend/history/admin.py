"""The history in the admin, to look at only."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest

from .models import Recipient
from .rows import bare


@admin.register(Recipient)
class RecipientAdmin(admin.ModelAdmin):  # type: ignore[type-arg]  # at runtime, it accepts no type argument
    """Find out what became of a mail. Looking needs the permission "Can view recipient"."""

    list_display = ["address", "subject", "status", "answer", "queued", "settled_at"]
    list_filter = ["status", "queued"]
    #: For the search box to appear; get_search_results() decides.
    search_fields = ["address"]
    search_help_text = "The whole address, the Message-ID, or the id of a message."
    # It would count all rows for each search.
    show_full_result_count = False

    @admin.display(description="reply or error")
    def answer(self, recipient: Recipient) -> str:
        """Return the server's reply, or why there was none."""
        return recipient.reply or recipient.error

    @admin.display(description="settled", ordering="changed")
    def settled_at(self, recipient: Recipient) -> datetime | None:
        """Return when it was settled, if it was."""
        return recipient.settled

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        """Find exact values only, since only these are found by an index."""
        term = search_term.strip()
        if not term:
            return queryset, False
        address = bare(term)
        addresses = Q(address__in={address, address.lower()})
        return queryset.filter(addresses | Q(message_id__in={term, f"<{term}>"}) | Q(mail_id=term)), False

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: the queue alone writes the history."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: MAIL_QUEUE_HISTORY_DAYS decides."""
        return False
