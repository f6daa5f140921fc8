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


class OutOfStep(smtplib.SMTPServerDisconnected):
    """The replies do not match what was sent; the message was not, and the connection is of no use."""


def pipeline(connection: DeliveryMixin, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, Reply]:
    """Send a message; give the replies to the recipients that were refused, by address.

    Raises what ``smtplib.SMTP.sendmail()`` raises, and OutOfStep.
    """
    to_mail, *to_recipients, to_data = _exchange(connection, _commands(connection, sender, recipients, message))
    refused = {to: reply for to, reply in zip(recipients, to_recipients, strict=True) if reply[0] not in (250, 251)}
    accepted = to_mail[0] == 250 and len(refused) < len(recipients)
    if to_data[0] == 354 and accepted:
        to_data = connection.send_body(message)
        if to_data[0] == 250:
            return refused
    elif to_data[0] == 354:
        _send_nothing(connection)
    connection.leave_transaction(to_mail, *to_recipients, to_data)
    if to_mail[0] != 250:
        raise smtplib.SMTPSenderRefused(*to_mail, sender)
    if not accepted:
        raise smtplib.SMTPRecipientsRefused(refused)
    raise smtplib.SMTPDataError(*to_data)


def _commands(connection: DeliveryMixin, sender: str, recipients: Sequence[str], message: bytes) -> list[str]:
    size = f" size={len(message)}" if connection.has_extn("size") else ""
    commands = [
        f"mail FROM:{smtplib.quoteaddr(sender)}{size}",
        *(f"rcpt TO:{smtplib.quoteaddr(recipient)}" for recipient in recipients),
        "data",
    ]
    if any("\r" in command or "\n" in command for command in commands):
        raise ValueError("An address contains a newline")
    return commands


def _exchange(connection: DeliveryMixin, commands: Sequence[str]) -> list[Reply]:
    """Send all commands in one write and read a reply to each; a 421 stands for all the rest, since none comes."""
    connection.send("".join(f"{command}\r\n" for command in commands).encode("ascii"))
    replies: list[Reply] = []
    try:
        while len(replies) < len(commands):
            closing = bool(replies) and replies[-1][0] == _CLOSING
            replies.append(replies[-1] if closing else connection.getreply())
    except smtplib.SMTPServerDisconnected as error:
        raise OutOfStep(f"{len(commands)} commands were sent at once, {len(replies)} answered: {error}") from error
    *to_others, to_data = (code for code, _ in replies)
    if not (_is_refusal(to_data) or to_data == 354) or not all(
        _is_refusal(code) or code // 100 == 2 for code in to_others
    ):
        connection.close()
        raise OutOfStep(f"{len(commands)} commands were sent at once, and these are no answers: {replies}")
    return replies


def _is_refusal(code: int) -> bool:
    return 400 <= code < 600


def _send_nothing(connection: DeliveryMixin) -> None:
    """Let a server have the end of a message that nobody shall get: it waits for one (RFC 2920, section 3.1)."""
    with suppress(smtplib.SMTPServerDisconnected):
        connection.send(b".\r\n")
        connection.getreply()
