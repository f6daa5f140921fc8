"""The rows of the history that an event of the queue makes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from datetime import timedelta

from django.db import models
from django.utils import timezone

from ..delivery.addressing import bare_address, plain_text, recipients_of
from ..delivery.events import Event
from ..settings import conf
from .models import Recipient, Status

#: Maximum number of characters of a reply or an error.
LONGEST_TEXT = 1000
_ASTRAL = re.compile("[\U00010000-\U0010ffff]")


def rows_of(events: Iterable[Event]) -> list[Recipient]:
    """Return the rows for these events; the last one for each message and address."""
    rows = {(row.message_id, row.address): row for event in events for row in _rows_of_event(event)}
    return list(rows.values())


def replace_astral(row: Recipient) -> bool:
    """Replace characters that take four bytes, such as emoji; return whether there were any.

    With MySQL's character set utf8mb3, which is that of a connection below Django 5.2, they cannot be stored.
    """
    found = False
    for field in ("subject", "reply", "error"):
        text, number = _ASTRAL.subn("?", getattr(row, field))
        setattr(row, field, text)
        found = found or number > 0
    return found


def bare(recipient: object) -> str:
    """Return a recipient as a row stores it: as a server sees it, if it can be parsed."""
    text = plain_text(recipient)
    return fitted("address", bare_address(text) or text)


def _rows_of_event(event: Event) -> Iterator[Recipient]:
    if event.message is None:  # buried unopened: the recipients are not known
        return
    now = timezone.now()
    has_fitting_id = 0 < len(event.message_id) <= _length("message_id")
    fields = {
        "message_id": fitted("message_id", event.message_id if has_fitting_id else event.id),
        "mail_id": fitted("mail_id", event.id),
        "queue": fitted("queue", event.queue),
        "subject": fitted("subject", getattr(event.message, "subject", "")) if conf.MAIL_QUEUE_HISTORY_SUBJECTS else "",
        "attempts": event.attempts,
        "queued": now - timedelta(seconds=max(event.age, 0)),
        "changed": now,
    }
    for recipient, (status, reply, error) in _results(event).items():
        texts = {"reply": fitted("reply", reply), "error": fitted("error", error)}
        yield Recipient(address=bare(recipient), status=status, **texts, **fields)


def _results(event: Event) -> dict[str, tuple[Status, str, str]]:
    """Return status, reply and error by recipient."""
    if event.status == "queued":
        return dict.fromkeys(recipients_of(event.message), (Status.QUEUED, "", ""))
    results: dict[str, tuple[Status, str, str]] = {}
    for status, errors in ((Status.WAITING, event.reasons), (Status.GIVEN_UP, event.refused)):
        for name, error in errors.items():
            # If the server has accepted the message for anybody, its last reply is about them.
            results[name] = (status, error if event.recipients else event.reply, error)
    return {**results, **dict.fromkeys(event.recipients, (Status.ACCEPTED, event.reply, ""))}


def fitted(field: str, value: object) -> str:
    """Return a value as text that every database stores, cut to the length of the field."""
    text = str(value or "").replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return text[: _length(field)]


def _length(field: str) -> int:
    column = Recipient._meta.get_field(field)
    assert isinstance(column, models.Field)
    return column.max_length or LONGEST_TEXT
