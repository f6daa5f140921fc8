"""The code of a site: send mail in every way that its Django offers."""

from __future__ import annotations

from typing import Any

import django
from django.core import mail
from django.core.mail import EmailMessage, EmailMultiAlternatives

FROM, TO = "site@example.com", ["reader@example.com"]


def main() -> None:
    django.setup()
    send_in_every_way("")
    if hasattr(mail, "mailers") and len(list(mail.mailers)) > 1:
        for using in ("news", "archive"):
            send_in_every_way(f"{using}: ", using=using)
    else:
        send_over_a_connection()


def send_in_every_way(prefix: str, **using: Any) -> None:
    """Send four messages."""
    mail.send_mail(f"{prefix}send_mail", "Body", FROM, TO, html_message="<p>Body</p>", **using)
    mail.send_mass_mail([(f"{prefix}send_mass_mail", "Body", FROM, TO)], **using)
    EmailMessage(subject=f"{prefix}EmailMessage", body="Grüße", from_email=FROM, to=TO).send(**using)
    rich = EmailMultiAlternatives(subject=f"{prefix}rich", body="Body", from_email=FROM, to=TO, cc=["cc@example.com"])
    rich.attach_alternative("<p>Body</p>", "text/html")
    rich.attach("a.bin", b"\x00\xff", "application/octet-stream")
    rich.send(**using)


def send_over_a_connection() -> None:
    """Send one message as sites did before Django 6.1."""
    with mail.get_connection() as connection:
        connection.send_messages([EmailMessage(subject="connection", body="Body", from_email=FROM, to=TO)])


if __name__ == "__main__":
    main()
