"""The page of all queues."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import HttpRequest, HttpResponse
from django.utils.timezone import now

from ...delivery.words import duration
from ...errors import MailQueueError
from ...inspection.figures import look_at, warnings_about
from ...inspection.text import printable
from ...mail.mailers import why_nothing_is_drained
from ...queues.base import MessageQueue
from ..permissions import READ, VIEW, may, requires
from ..privacy import without_addresses
from .pages import page, site_queues


@requires(VIEW)
def queues(site: AdminSite, request: HttpRequest) -> HttpResponse:
    """Show the figures of each queue."""
    problem, rows = "", []
    try:
        rows = [_row(queue, may(request, READ)) for queue in site_queues().values()]
        problem = "" if rows else why_nothing_is_drained()
    except MailQueueError as error:
        problem = str(error)
    warnings = dict.fromkeys(warning for row in rows for warning in row["warnings"])
    return page(site, request, "queues", "Mail queues", queues=rows, warnings=list(warnings), problem=problem)


def _row(queue: MessageQueue, may_read: bool) -> dict[str, Any]:
    """Return what the template shows of a queue, even if the queue cannot be asked."""
    row: dict[str, Any] = {"name": queue.name, "browsable": queue.browsable, "warnings": []}
    try:
        figures = look_at(queue)
        row["warnings"] = warnings_about(queue, figures.counts)
    except MailQueueError as error:
        return {**row, "problem": str(error)}
    oldest = None if figures.oldest is None else duration(now().timestamp() - figures.oldest)
    last_error = printable(figures.last_error if may_read else without_addresses(figures.last_error))
    return {**row, "counts": figures.counts, "oldest": oldest, "last_error": last_error, "paused": figures.paused}
