"""What all pages need: the site's queues, and a page in the look of the admin."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.contrib.admin.utils import quote, unquote
from django.http import Http404, HttpRequest
from django.template.response import TemplateResponse
from django.urls import reverse

from ...mail.mailers import backends_to_drain
from ...queues.base import MessageQueue
from ..models import Queue
from ..permissions import ACT, READ, may


def site_queues() -> dict[str, MessageQueue]:
    """Return the queues that process_mail_queue drains, by name. Raises ConfigurationError."""
    return {backend.que.name: backend.que for backend in backends_to_drain()}


def site_queue(name: str) -> MessageQueue:
    """Return a queue of the site by its name as address() quotes it. Raises Http404, ConfigurationError."""
    try:
        return site_queues()[unquote(name)]
    except KeyError as error:
        raise Http404("This site has no such queue.") from error


def address(site: AdminSite, view: str, *args: str) -> str:
    """Return the address of a page."""
    return reverse(f"admin:mailqueue_dashboard_queue_{view}", args=[*map(quote, args)], current_app=site.name)


def page(
    site: AdminSite,
    request: HttpRequest,
    template: str,
    title: str,
    queue: MessageQueue | None = None,
    **context: Any,
) -> TemplateResponse:
    """Return a page of the admin, perhaps about one queue."""
    rights = {"may_read": may(request, READ), "may_act": may(request, ACT)}
    common = {**site.each_context(request), "title": title, "opts": Queue._meta, **rights}
    if queue is not None:  # not the queue itself, whose truth is its length
        common |= {"queue_name": queue.name, "is_browsable": queue.browsable}
    request.current_app = site.name
    return TemplateResponse(request, f"mailqueue_dashboard/{template}.html", {**common, **context})
