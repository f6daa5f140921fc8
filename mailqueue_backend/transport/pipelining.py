"""Command pipelining (RFC 2920): send MAIL, all RCPT and DATA in one write, so a message takes two round trips."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

Reply = tuple[int, bytes]

#: Maximum number of recipients of a pipelined message; its commands and their replies must fit into network buffers.
PIPELINED_RECIPIENTS = 100
#: The reply of a server that closes the connection.
_CLOSING = 421


class OutOfStep(smtplib.SMTPServerDisconnected):
    """The replies do not match the commands; the message was not accepted, and the connection is closed."""


class Connection(Protocol):
    """The methods of an SMTP connection that this module uses; see connection.DeliveryMixin."""

    def send(self, s: bytes) -> None: ...
    def getreply(self) -> Reply: ...
    def has_extn(self, opt: str) -> bool: ...
    def close(self) -> None: ...


def exchange(
    connection: Connection, sender: str, recipients: Sequence[str], size: int
) -> tuple[Reply, list[Reply], Reply]:
    """Send the commands that begin a message, and return the replies to MAIL, to each RCPT, and to DATA.

    Raises OutOfStep if the replies cannot belong to these commands.
    """
    size_parameter = f" size={size}" if connection.has_extn("size") else ""
    commands = [f"mail FROM:{smtplib.quoteaddr(sender)}{size_parameter}"]
    for recipient in recipients:
        commands.append(f"rcpt TO:{smtplib.quoteaddr(recipient)}")
    commands.append("data")
    lines = "\r\n".join(commands)
    if lines.count("\r") != len(commands) - 1 or lines.count("\n") != len(commands) - 1:
        raise ValueError("An address contains a newline")
    connection.send(f"{lines}\r\n".encode("ascii"))
    to_mail, *to_recipients, to_data = _read_replies(connection, len(commands))
    return to_mail, to_recipients, to_data


def _read_replies(connection: Connection, commands: int) -> list[Reply]:
    """Read the reply to each command; after a 421 no more replies follow, so it counts for the remaining commands."""
    replies: list[Reply] = []
    try:
        while len(replies) < commands and (not replies or replies[-1][0] != _CLOSING):
            replies.append(connection.getreply())
    except smtplib.SMTPServerDisconnected as error:
        raise OutOfStep(f"{len(replies)} replies to {commands} pipelined commands: {error}") from error
    replies += [replies[-1]] * (commands - len(replies))
    for number, (code, _) in enumerate(replies, start=1):
        if not (400 <= code < 600 or (code == 354 if number == commands else code // 100 == 2)):
            connection.close()
            raise OutOfStep(f"unexpected replies to {commands} pipelined commands: {replies}")
    return replies


def send_empty_message(connection: Connection) -> None:
    """Answer a 354 although all recipients were refused: the server waits for a message (RFC 2920, section 3.1)."""
    with suppress(smtplib.SMTPServerDisconnected):
        connection.send(b".\r\n")
        connection.getreply()
