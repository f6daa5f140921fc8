"""The pages of the queues in the admin, and their addresses."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from django.contrib import admin
from django.db import DEFAULT_DB_ALIAS
from django.db.transaction import non_atomic_requests
from django.http import HttpRequest, HttpResponse
from django.urls import URLPattern, path
from django.views.decorators.http import require_POST, require_safe

from ..settings import conf
from .models import Queue
from .permissions import VIEW, may
from .views.actions import act_on_messages, hold
from .views.messages import message, messages
from .views.parts import attachment, html
from .views.queues import queues


@admin.register(Queue)
class QueueAdmin(admin.ModelAdmin):  # type: ignore[type-arg]
    """Has pages of its own instead of ModelAdmin's, since there is no table."""

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Show the queues in the index of the admin."""
        return may(request, VIEW)

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Refuse: settings define the queues."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse."""
        return False

    def get_urls(self) -> list[URLPattern]:
        """Return the addresses of the pages."""
        return [
            self._path("", require_safe, queues, "changelist"),
            self._path("<str:name>/message/<str:token>/", require_safe, message, "message"),
            self._path("<str:name>/html/<str:token>/", require_safe, html, "html"),
            self._path("<str:name>/attachment/<str:token>/<int:number>/", require_safe, attachment, "attachment"),
            self._path("<str:name>/act/<str:state>/", require_POST, act_on_messages, "act"),
            self._path("<str:name>/pause/", require_POST, partial(hold, verb="pause"), "pause"),
            self._path("<str:name>/resume/", require_POST, partial(hold, verb="resume"), "resume"),
            self._path("<str:name>/<str:state>/", require_safe, messages, "messages"),
        ]

    def _path(self, route: str, method: Callable[[Any], Any], view: Callable[..., HttpResponse], name: str) -> Any:
        """Return the address of a view. Each message that it acts on is settled at once, not at the view's end."""
        wrapped: Any = self.admin_site.admin_view(method(partial(view, self.admin_site)))
        for alias in {DEFAULT_DB_ALIAS, conf.MAIL_QUEUE_DATABASE}:
            wrapped = non_atomic_requests(alias)(wrapped)
        return path(route, wrapped, name=f"mailqueue_dashboard_queue_{name}")
