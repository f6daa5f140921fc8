"""Messages and figures as lines for a terminal, without the control characters that it would obey."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from ..delivery.words import duration
from .figures import Figures
from .messages import Message

#: Maximum length of an error in the table of status.
_ERROR_LENGTH = 60
_HEADINGS = ("QUEUE", "DUE", "DEFERRED", "RESERVED", "DEAD", "OLDEST", "LAST ERROR")
#: Headings of list, which prints each message as soon as it is read.
LIST_HEADING = f"{'ID':12}  {'STATE':8}  {'AGE':>10}  {'TRIES':>5}  {'BYTES':>9}  FROM -> TO: SUBJECT"


def printable(text: str) -> str:
    """Escape control characters and line ends."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode("ascii") for each in text)


def table(figures: Sequence[Figures]) -> Iterator[str]:
    """Return the lines of ``mail_queue status``."""
    rows = [_HEADINGS, *map(_row, figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEADINGS))]
    for row in rows:
        yield "  ".join(_aligned(row, widths)).rstrip()
    for each in figures:
        if each.paused is not None:
            yield f"{printable(each.queue)} is paused{': ' if each.paused else ''}{printable(each.paused)}"


def line(message: Message) -> str:
    """Return the line of ``mail_queue list``, and a second one if the message has failed."""
    to = ", ".join(message.recipients)
    first = (
        f"{message.id:12}  {message.entry.state:8}  {_age(message.created):>10}  {message.attempts:>5}  "
        f"{len(message.entry.payload):>9}  {printable(f'{message.sender} -> {to}: {message.subject}')}"
    )
    return f"{first}\n{'':14}{printable(message.last_error)}" if message.last_error else first


def details(message: Message) -> Iterator[str]:
    """Return the lines of ``mail_queue show``."""
    facts = message.as_json() | {"to": ", ".join(message.recipients), "age": _age(message.created)}
    for name, value in facts.items():
        if value not in (None, ""):
            yield f"{name.replace('_', ' ')}: {printable(str(value))}"
    if message.envelope is not None:
        yield from _content(message.envelope.email)


def _content(email: Any) -> Iterator[str]:
    for attachment in getattr(email, "attachments", ()):
        name = attachment[0] if isinstance(attachment, tuple) else attachment.get_filename()
        yield f"attachment: {printable(str(name))}"
    yield ""
    yield from map(printable, str(getattr(email, "body", "")).splitlines())


def _row(figures: Figures) -> Sequence[str]:
    _, due, deferred, reserved, dead = map(str, figures.counts)
    name = printable(figures.queue) + ("" if figures.paused is None else " (paused)")
    error = printable(figures.last_error)
    error = error if len(error) <= _ERROR_LENGTH else f"{error[: _ERROR_LENGTH - 1]}…"
    return name, due, deferred, reserved, dead, _age(figures.oldest), error


def _aligned(row: Iterable[str], widths: Sequence[int]) -> Iterator[str]:
    """Numbers to the right, texts to the left."""
    for column, (cell, width) in enumerate(zip(row, widths, strict=True)):
        yield cell.rjust(width) if 0 < column < 5 else cell.ljust(width)


def _age(since: float | None) -> str:
    return "-" if since is None else duration(time.time() - since)
