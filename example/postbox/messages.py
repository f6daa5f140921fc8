"""One message of each kind, created as in any Django site."""

from __future__ import annotations

import email.message
from email.mime.image import MIMEImage
from pathlib import Path
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.translation import gettext_lazy

LOGO = (Path(__file__).parent / "logo.png").read_bytes()


def one_of_each_kind(to: str) -> list[EmailMessage]:
    """Return the messages, addressed to one recipient."""
    return [
        plain(to),
        html_with_inline_image(to),
        attachment(to),
        non_ascii(to),
        bcc(to),
        lazy_subject(to),
    ]


def plain(to: str) -> EmailMessage:
    """Return a plain-text message."""
    return EmailMessage(subject="Plain text", body="A line of plain text.\n", to=[to])


def html_with_inline_image(to: str) -> EmailMessage:
    """Return an HTML message with a plain-text alternative and an inline image."""
    message = EmailMultiAlternatives(subject="HTML with an inline image", body="The logo, in words.\n", to=[to])
    message.attach_alternative('<p>The logo: <img src="cid:logo" alt="an envelope"></p>\n', "text/html")
    if hasattr(EmailMessage, "mixed_subtype"):
        message.mixed_subtype = "related"  # Django < 6.0
    message.attach(_inline_image(LOGO, "logo"))
    return message


def attachment(to: str) -> EmailMessage:
    """Return a message with a CSV attachment whose name and content are not ASCII."""
    message = EmailMessage(subject="An attachment", body="See the table.\n", to=[to])
    message.attach("Übersicht.csv", "Stadt,Straße\nKöln,Domstraße\n", "text/csv")
    return message


def non_ascii(to: str) -> EmailMessage:
    """Return a message with non-ASCII text in the subject, a name and the body."""
    return EmailMessage(subject="Grüße, 你好, привет", body="Schöne Grüße 👋\n", to=[f"Jörg Müller <{to}>"])


def bcc(to: str) -> EmailMessage:
    """Return a message to a recipient that no header names."""
    return EmailMessage(subject="A blind copy", body="No header names you.\n", to=[], bcc=[to])


def lazy_subject(to: str) -> EmailMessage:
    """Return a message with a lazy subject, which must be translated into the sender's language."""
    subject = gettext_lazy("The install worked successfully! Congratulations!")
    return EmailMessage(subject=subject, body="The subject is in your browser's language.\n", to=[to])


def _inline_image(data: bytes, content_id: str) -> Any:
    if hasattr(EmailMessage, "mixed_subtype"):
        image = MIMEImage(data, "png")  # Django < 6.0: attach() does not accept MIMEPart
        image["Content-Disposition"] = "inline"
        image["Content-ID"] = f"<{content_id}>"
        return image
    part = email.message.MIMEPart()
    part.set_content(data, maintype="image", subtype="png", disposition="inline", cid=f"<{content_id}>")
    return part
