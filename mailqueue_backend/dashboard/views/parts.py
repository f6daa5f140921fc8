"""The parts of a message, for its page: the HTML in a frame, and the attachments.

Their addresses are valid for the user who has opened the page, which has written it to the log.
"""

from __future__ import annotations

from django.contrib.admin import AdminSite
from django.http import Http404, HttpRequest, HttpResponse
from django.utils.http import content_disposition_header

from ...errors import Unreadable
from .. import tokens
from ..content import Content, content_of
from ..html import html_document, secured
from ..permissions import READ, VIEW, requires
from .pages import site_queue


@requires(VIEW, READ)
def html(site: AdminSite, request: HttpRequest, name: str, token: str) -> HttpResponse:
    """Return the HTML of a message as a document of its own."""
    content = _content(request, name, token)
    if content.html is None:
        raise Http404("The message has no HTML.")
    return html_document(content.html, content.attachments)


@requires(VIEW, READ)
def attachment(site: AdminSite, request: HttpRequest, name: str, token: str, number: int) -> HttpResponse:
    """Download an attachment; the browser does not show it, whatever it is."""
    try:
        part = _content(request, name, token).attachments[number]
    except IndexError as error:
        raise Http404("The message has no such attachment.") from error
    response = HttpResponse(part.content, content_type="application/octet-stream")
    response["Content-Disposition"] = content_disposition_header(True, part.name or "part") or "attachment"
    return secured(response)


def _content(request: HttpRequest, name: str, token: str) -> Content:
    message = tokens.message_of(site_queue(name), token, tokens.PART, request.user.pk)
    if message is None:
        raise Http404("The message has left the queue.")
    try:
        return content_of(message)
    except Unreadable as error:
        raise Http404(f"The message cannot be shown: {error}") from error
