"""Command pipelining (RFC 2920): MAIL, all RCPT and DATA in one write, so that a message costs two round trips."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

Reply = tuple[int, bytes]

#: Recipients of a pipelined message at most: its commands and their replies must fit into the buffers on the way.
PIPELINED_RECIPIENTS = 100
_CLOSING = 421


class OutOfStep(smtplib.SMTPServerDisconnected):
    """The replies do not match what was sent; the message was not, and the connection is of no use."""


class Connection(Protocol):
    """What this module needs of an SMTP connection; connection.DeliveryMixin has it."""

    def send(self, s: bytes) -> None: ...
    def getreply(self) -> Reply: ...
    def has_extn(self, opt: str) -> bool: ...
    def close(self) -> None: ...


def exchange(
    connection: Connection, sender: str, recipients: Sequence[str], size: int
) -> tuple[Reply, list[Reply], Reply]:
    """Send the commands that begin a message, and return the replies to MAIL, to each RCPT, and to DATA.

    Raises OutOfStep when these are no replies to them.
    """
    said_size = f" size={size}" if connection.has_extn("size") else ""
    commands = [f"mail FROM:{smtplib.quoteaddr(sender)}{said_size}"]
    for recipient in recipients:
        commands.append(f"rcpt TO:{smtplib.quoteaddr(recipient)}")
    commands.append("data")
    written = "\r\n".join(commands)
    if written.count("\r") != len(commands) - 1 or written.count("\n") != len(commands) - 1:
        raise ValueError("An address contains a newline")
    connection.send(f"{written}\r\n".encode("ascii"))
    to_mail, *to_recipients, to_data = _read_replies(connection, len(commands))
    return to_mail, to_recipients, to_data


def _read_replies(connection: Connection, commands: int) -> list[Reply]:
    """Read a reply to each command; a 421 stands for all the rest, since none comes."""
    replies: list[Reply] = []
    try:
        while len(replies) < commands and (not replies or replies[-1][0] != _CLOSING):
            replies.append(connection.getreply())
    except smtplib.SMTPServerDisconnected as error:
        raise OutOfStep(f"{commands} commands were sent at once, {len(replies)} answered: {error}") from error
    replies += [replies[-1]] * (commands - len(replies))
    for number, (code, _) in enumerate(replies, start=1):
        if not (400 <= code < 600 or (code == 354 if number == commands else code // 100 == 2)):
            connection.close()
            raise OutOfStep(f"{commands} commands were sent at once, and these are no answers: {replies}")
    return replies


def send_nothing(connection: Connection) -> None:
    """End the transaction with an empty message, which a 354 makes the server wait for (RFC 2920, section 3.1)."""
    with suppress(smtplib.SMTPServerDisconnected):
        connection.send(b".\r\n")
        connection.getreply()
