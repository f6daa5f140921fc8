"""The messages of a queue, and a single one."""

from __future__ import annotations

from typing import Any

from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse

from ...errors import MailQueueError, Unreadable
from ...inspection.acting import Action, Discard, Retry, Revive
from ...inspection.listing import STATES
from ...inspection.messages import Message
from ...inspection.text import printable
from ...queues.base import State
from .. import tokens
from ..content import content_of
from ..html import HTML_LENGTH
from ..log import log_message
from ..permissions import READ, VIEW, may, requires
from ..rows import list_page, row_of
from .pages import page, site_queue

#: The actions, and what has become of the messages.
ACTIONS: dict[str, tuple[type[Action], str]] = {
    "retry": (Retry, "retried"),
    "discard": (Discard, "discarded"),
    "revive": (Revive, "revived"),
}
#: Maximum length of a text that is shown, in characters.
TEXT_LENGTH = 100_000


@requires(VIEW)
def messages(site: AdminSite, request: HttpRequest, name: str, state: State) -> HttpResponse:
    """List the messages in a state, page by page; search them, if the user may read them."""
    if state not in STATES:
        raise Http404("There is no such state.")
    queue, may_read, cursor = site_queue(name), may(request, READ), request.GET.get("after", "")
    search, title = request.GET.get("q", "").strip() if may_read else "", f"{queue.name}: {state} messages"
    after = tokens.entry_of(queue, cursor, tokens.CURSOR) if cursor else None
    context: dict[str, Any] = {"state": state, "search": search, "is_first": after is None}
    try:
        counts = queue.counts()
        context["tabs"] = [(each, getattr(counts, each)) for each in STATES]
        if queue.browsable:
            context["page"] = list_page(queue, state, after, search, may_read)
    except MailQueueError as error:
        return page(site, request, "messages", title, queue, **context, problem=str(error))
    context |= {"actions": actions_in(state), "total": getattr(counts, state)}
    return page(site, request, "messages", title, queue, **context)


def actions_in(state: State) -> list[str]:
    """Return the actions on messages in this state."""
    return [name for name, (action, _) in ACTIONS.items() if state in action.states]


@requires(VIEW, READ)
def message(site: AdminSite, request: HttpRequest, name: str, token: str) -> HttpResponse:
    """Show a message, and write that to the admin's log."""
    queue = site_queue(name)
    try:
        found = tokens.message_of(queue, token, tokens.MESSAGE)
    except MailQueueError as error:
        return page(site, request, "message", queue.name, queue, problem=str(error))
    if found is None:
        return page(site, request, "message", queue.name, queue, is_gone=True)
    log_message(request, found, "Read.")
    context = {
        "state": found.entry.state,
        "message": found,
        "row": row_of(found, True),
        "recipients": [printable(each) for each in found.recipients],
        "part": tokens.token_for(queue, found.entry, tokens.PART, request.user.pk),
        "actions": actions_in(found.entry.state),
        **_content(found),
    }
    return page(site, request, "message", f"Message {found.id}", queue, **context)


def _content(found: Message) -> dict[str, Any]:
    """Return what a message contains, or why it cannot be shown."""
    try:
        content = content_of(found)
    except Unreadable as error:
        return {"unreadable": printable(str(error))}
    text, html = (part.text if part else "" for part in (content.text, content.html))
    return {
        "content": content,
        "text": text[:TEXT_LENGTH],
        "text_is_cut": len(text) > TEXT_LENGTH,
        "html_is_cut": len(html) > HTML_LENGTH,
    }
