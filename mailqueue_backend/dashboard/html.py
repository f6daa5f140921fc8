"""The HTML of a mail as a document for a frame: its own images are shown, and nothing is loaded.

The response carries a Content-Security-Policy, which the browser enforces: no scripts, no forms, nothing remote, an
origin of its own.
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import unquote

from django.http import HttpResponse

from .content import Part

#: Maximum length of the HTML that is shown, in characters, and of all its images, in bytes.
HTML_LENGTH, IMAGE_BYTES = 1_000_000, 10_000_000
#: The types of images that are shown.
IMAGES = {"image/png", "image/jpeg", "image/gif", "image/webp"}
POLICY = "sandbox; default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_CID = re.compile(r"cid:([^\"'\s>)]{1,250})", re.IGNORECASE)
#: Chromium connects to the servers of these before it looks at the policy, which then only forbids the request.
_LINKS = re.compile(r"\bhref\b", re.IGNORECASE)
_FRAMES = re.compile(r"<(?=(?:i?frame|link|object|embed)\b)", re.IGNORECASE)


def html_document(html: Part, attachments: Iterable[Part]) -> HttpResponse:
    """Return the response with the HTML of a mail."""
    text = _FRAMES.sub("<without-", _LINKS.sub("data-href", html.text[:HTML_LENGTH]))
    response = HttpResponse(_with_images(text, attachments), content_type="text/html; charset=utf-8")
    response["X-Frame-Options"] = "SAMEORIGIN"
    response["X-DNS-Prefetch-Control"] = "off"
    return secured(response)


def secured(response: HttpResponse) -> HttpResponse:
    """Add the headers that keep a browser from obeying what a mail contains."""
    response["Content-Security-Policy"] = POLICY
    response["X-Content-Type-Options"] = "nosniff"
    response["Referrer-Policy"] = "no-referrer"
    return response


def _with_images(text: str, attachments: Iterable[Part]) -> str:
    """Put the images of the mail in place of their Content-IDs, as long as there is room for them."""
    images = {part.cid: part for part in attachments if part.cid and part.content_type in IMAGES}
    room = IMAGE_BYTES

    def replace(match: re.Match[str]) -> str:
        nonlocal room
        image = images.get(match[1]) or images.get(unquote(match[1]))
        if image is None or len(image.content) > room:
            return match[0]
        room -= len(image.content)
        return f"data:{image.content_type};base64,{b64encode(image.content).decode('ascii')}"

    return _CID.sub(replace, text)
