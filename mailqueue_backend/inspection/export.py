"""Render queued messages as a drain would send them, and write them to files."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TypeVar

from ..envelope import compat
from ..errors import Unreadable, interrupts
from ..transport.rendering import with_encoded_attachments
from .messages import Message

T = TypeVar("T")


def render(message: Message) -> bytes:
    """Return the bytes that Django's SMTP backend sends for a message. Raises Unreadable if there are none."""
    if message.envelope is None:
        raise Unreadable(message.problem)
    email = with_encoded_attachments(message.envelope.email)
    return guarded(lambda: compat.render(email))


def guarded(render: Callable[[], T]) -> T:
    """Call what renders a message, and may raise anything. Raises Unreadable instead."""
    try:
        return render()
    except interrupts():
        raise
    except Exception as error:
        raise Unreadable(f"rendering it raised {type(error).__name__}: {error}") from error


def export(messages: Iterable[Message], directory: Path) -> Iterator[tuple[Message, Path, str]]:
    """Write each message to ID.eml; yield it, its file, and why it could not be rendered, or "".

    Such a message is written to ID.pickle, unchanged. Existing files are not overwritten. Raises OSError.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    copies: dict[str, int] = {}
    for message in messages:
        copies[message.id] = number = copies.get(message.id, 0) + 1
        name = message.id if number == 1 else f"{message.id}-{number}"
        problem = ""
        try:
            content, suffix = render(message), "eml"
        except Unreadable as error:
            content, suffix, problem = message.entry.payload, "pickle", str(error)
        path = directory / f"{name}.{suffix}"
        _write_new(path, content)
        yield message, path, problem


def _write_new(path: Path, content: bytes) -> None:
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
