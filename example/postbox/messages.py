"""One message of each kind, made as any Django site makes them."""

from __future__ import annotations

import email.message
from email.mime.image import MIMEImage
from pathlib import Path
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.utils.translation import gettext_lazy

LOGO = (Path(__file__).parent / "logo.png").read_bytes()


def one_of_each_kind(to: str) -> list[EmailMessage]:
    """Make the messages for one recipient."""
    return [
        plain(to),
        html_with_inline_image(to),
        attachment(to),
        non_ascii(to),
        bcc(to),
        lazy_subject(to),
    ]


def plain(to: str) -> EmailMessage:
    """Give plain text."""
    return EmailMessage(subject="Plain text", body="A line of plain text.\n", to=[to])


def html_with_inline_image(to: str) -> EmailMessage:
    """Give HTML with a plain alternative, and a picture that the HTML shows."""
    message = EmailMultiAlternatives(subject="HTML with an inline image", body="The logo, in words.\n", to=[to])
    message.attach_alternative('<p>The logo: <img src="cid:logo" alt="an envelope"></p>\n', "text/html")
    if hasattr(EmailMessage, "mixed_subtype"):
        message.mixed_subtype = "related"  # Django < 6.0
    message.attach(_inline_image(LOGO, "logo"))
    return message


def attachment(to: str) -> EmailMessage:
    """Attach a table whose name and content are not ASCII."""
    message = EmailMessage(subject="An attachment", body="See the table.\n", to=[to])
    message.attach("Übersicht.csv", "Stadt,Straße\nKöln,Domstraße\n", "text/csv")
    return message


def non_ascii(to: str) -> EmailMessage:
    """Use other alphabets in the subject, a name and the text."""
    return EmailMessage(subject="Grüße, 你好, привет", body="Schöne Grüße 👋\n", to=[f"Jörg Müller <{to}>"])


def bcc(to: str) -> EmailMessage:
    """Address somebody whom no header names."""
    return EmailMessage(subject="A blind copy", body="No header names you.\n", to=[], bcc=[to])


def lazy_subject(to: str) -> EmailMessage:
    """Use a text that is translated late: it must come out in the language of the one who sends."""
    subject = gettext_lazy("The install worked successfully! Congratulations!")
    return EmailMessage(subject=subject, body="The subject is in your browser's language.\n", to=[to])


def _inline_image(data: bytes, content_id: str) -> Any:
    if hasattr(EmailMessage, "mixed_subtype"):
        image = MIMEImage(data, "png")  # Django < 6.0: it attaches nothing newer
        image["Content-Disposition"] = "inline"
        image["Content-ID"] = f"<{content_id}>"
        return image
    part = email.message.MIMEPart()
    part.set_content(data, maintype="image", subtype="png", disposition="inline", cid=f"<{content_id}>")
    return part
