"""Command pipelining (RFC 2920): MAIL, all RCPT and DATA in one write, so that a message costs two round trips."""

from __future__ import annotations

import smtplib
from collections.abc import Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .connection import DeliveryMixin

Reply = tuple[int, bytes]

#: Recipients of a pipelined message at most: its commands and their replies must fit into the buffers on the way.
PIPELINED_RECIPIENTS = 100
_CLOSING = 421


class PipeliningFailed(smtplib.SMTPServerDisconnected):
    """The replies do not match the commands; the message was not sent, and the connection is of no use."""


def pipeline(connection: DeliveryMixin, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, Reply]:
    """Send a message; give the replies to the recipients that were refused, by address.

    Raises what ``smtplib.SMTP.sendmail()`` raises, and PipeliningFailed.
    """
    size = f" size={len(message)}" if connection.has_extn("size") else ""
    commands = [
        f"mail FROM:{smtplib.quoteaddr(sender)}{size}",
        *(f"rcpt TO:{smtplib.quoteaddr(recipient)}" for recipient in recipients),
        "data",
    ]
    to_mail, *to_recipients, to_data = _exchange(connection, commands)
    refused = {to: reply for to, reply in zip(recipients, to_recipients, strict=True) if reply[0] not in (250, 251)}
    accepted = to_mail[0] == 250 and len(refused) < len(recipients)
    if to_data[0] == 354 and not accepted:
        # RFC 2920, section 3.1: the server waits for a message that nobody shall get.
        connection.send(b".\r\n")
        connection.getreply()
    elif to_data[0] == 354 and (answer := connection.send_body(message))[0] == 250:
        return refused
    elif to_data[0] == 354:
        to_data = answer
    _leave_transaction(connection, to_mail, *to_recipients, to_data)
    if to_mail[0] != 250:
        raise smtplib.SMTPSenderRefused(*to_mail, sender)
    if not accepted:
        raise smtplib.SMTPRecipientsRefused(refused)
    raise smtplib.SMTPDataError(*to_data)


def _exchange(connection: DeliveryMixin, commands: Sequence[str]) -> list[Reply]:
    """Send all commands in one write and read a reply to each; a 421 stands for all the rest, since none comes."""
    connection.send("".join(f"{command}\r\n" for command in map(_without_newline, commands)).encode("ascii"))
    replies: list[Reply] = []
    try:
        while len(replies) < len(commands):
            closing = bool(replies) and replies[-1][0] == _CLOSING
            replies.append(replies[-1] if closing else connection.getreply())
    except smtplib.SMTPServerDisconnected as error:
        raise PipeliningFailed(
            f"{len(commands)} commands were sent at once, {len(replies)} answered: {error}"
        ) from error
    if any(code < 200 for code, _ in replies) or (connection.surplus() and replies[-1][0] != _CLOSING):
        connection.close()
        raise PipeliningFailed("The replies do not match the commands that were sent at once")
    return replies


def _without_newline(command: str) -> str:
    if "\r" in command or "\n" in command:
        raise ValueError("An address contains a newline")
    return command


def _leave_transaction(connection: DeliveryMixin, *replies: Reply) -> None:
    """Make the connection ready for the next message, as smtplib does after a refusal."""
    if any(code == _CLOSING for code, _ in replies):
        connection.close()
    else:
        with suppress(smtplib.SMTPServerDisconnected):
            connection.rset()
