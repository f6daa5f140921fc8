"""A page of messages, as rows that hold no payload."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import NamedTuple

from django.utils.timezone import localtime

from ..delivery.words import duration
from ..inspection.listing import list_messages
from ..inspection.messages import Message
from ..inspection.text import printable
from ..queues.base import Entry, MessageQueue, State
from . import tokens
from .privacy import error_without_addresses

#: Messages on a page.
PAGE_SIZE = 50
#: Messages that a search looks at before it asks whether to continue.
SEARCHED = 10_000
#: Recipients in a row, and maximum length of a subject or an error in it, in characters.
RECIPIENTS, TEXT_LENGTH = 3, 200


class Row(NamedTuple):
    """What a list shows of a message; the last three are empty for users who may not read it."""

    token: str
    id: str
    state: State
    age: str
    attempts: int
    size: int
    due: datetime | None
    last_error: str
    sender: str = ""
    recipients: str = ""
    subject: str = ""


class Page(NamedTuple):
    """The rows of a page."""

    rows: list[Row]
    #: The token at which the next page begins; "" on the last page.
    next: str
    #: How many messages a search has looked at before it ended; 0 if it has looked at all, or has filled the page.
    searched: int


def list_page(queue: MessageQueue, state: State, after: Entry | None, search: str, may_read: bool) -> Page:
    """Return the messages behind ``after`` that contain the text ``search``. Raises QueueUnavailable."""
    rows: list[Row] = []
    last: Entry | None = None
    for number, message in enumerate(list_messages(queue, [state], after)):
        if last is not None and (len(rows) == PAGE_SIZE or number == SEARCHED):
            return Page(rows, tokens.token_for(queue, last, tokens.CURSOR), number if number == SEARCHED else 0)
        last = message.entry
        if not search or _contains(message, search.lower()):
            rows.append(row_of(message, may_read))
    return Page(rows, "", 0)


def row_of(message: Message, may_read: bool) -> Row:
    """Return the row of a message."""
    row = Row(
        tokens.token_for(message.queue, message.entry, tokens.MESSAGE),
        message.id,
        message.entry.state,
        "" if message.created is None else duration(time.time() - message.created),
        message.attempts,
        len(message.entry.payload),
        _datetime(message.due),
        _short(message.last_error if may_read else error_without_addresses(message)),
    )
    return _with_texts(row, message) if may_read else row


def _with_texts(row: Row, message: Message) -> Row:
    more = len(message.recipients) - RECIPIENTS
    recipients = ", ".join(message.recipients[:RECIPIENTS]) + (f" and {more} more" if more > 0 else "")
    return row._replace(sender=_short(message.sender), recipients=_short(recipients), subject=_short(message.subject))


def _contains(message: Message, search: str) -> bool:
    texts = (message.id, message.message_id, message.subject, message.sender, *message.recipients)
    return any(search in text.lower() for text in texts)


def _short(text: str) -> str:
    text = printable(text)
    return text if len(text) <= TEXT_LENGTH else f"{text[: TEXT_LENGTH - 1]}…"


def _datetime(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else localtime(datetime.fromtimestamp(seconds, timezone.utc))
    except (ValueError, OverflowError, OSError):
        return None
