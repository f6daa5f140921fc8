"""Who may see what."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, cast

from django.contrib.admin import AdminSite
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse

#: Counts, ages, states, errors without addresses.
VIEW = "mailqueue_dashboard.view_queue"
#: Subjects, recipients, texts, attachments; searching for them.
READ = "mailqueue_dashboard.read_messages"
#: Retry, discard, revive, pause, resume.
ACT = "mailqueue_dashboard.act_on_messages"

P = ParamSpec("P")
View = Callable[Concatenate[AdminSite, HttpRequest, P], HttpResponse]


def may(request: HttpRequest, permission: str) -> bool:
    """Return whether the user has a permission."""
    return request.user.has_perm(permission)


def requires(*permissions: str) -> Callable[[View[P]], View[P]]:
    """Refuse a view to users who lack one of these permissions."""

    def decorate(view: View[P]) -> View[P]:
        @wraps(view)
        def guarded(site: AdminSite, request: HttpRequest, *args: P.args, **kwargs: P.kwargs) -> HttpResponse:
            if not all(may(request, permission) for permission in permissions):
                raise PermissionDenied
            return view(site, request, *args, **kwargs)

        return cast("View[P]", guarded)

    return decorate
