"""The SMTP connection of a drain: smtplib's, which also notes who accepted a message, pipelines, and has a deadline."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Sequence
from typing import Any

from .pipelining import PIPELINED_RECIPIENTS, OutOfStep, Reply, exchange, send_nothing
from .replies import REPLY_SIZE, Replies
from .sockets import Deadline, DeadlineSMTP

#: Seconds that the server has to answer QUIT.
QUIT_TIMEOUT = 5
#: Bytes of a message that are sent in one go: each go has the time-out of its own.
CHUNK = 64 * 1024
_CLOSING = 421
_ACCEPTED = (250, 251)
_LEADING_DOT = re.compile(rb"(?m)^\.")


class Transcript:
    """What a server has said of one message, over all transactions and connections that it took.

    Addresses are as they were sent to the server.
    """

    def __init__(self) -> None:
        #: The recipients that sendmail() was given last.
        self.recipients: list[str] = []
        #: Those for whom a transaction ended with 250: the server has the message for them.
        self.accepted: list[str] = []
        #: The replies to RCPT of those who were refused.
        self.refused: dict[str, Reply] = {}


class DeliveryMixin(smtplib.SMTP):
    """What a drain adds to smtplib's SMTP and SMTP_SSL."""

    file: Replies | None

    def __init__(self, *args: Any, deadline: Deadline, **kwargs: Any) -> None:
        self._deadline = deadline
        #: Pipeline where the server announces it.
        self.may_pipeline = True
        #: Of the message that is being sent; the session sets a new one for each.
        self.transcript = Transcript()
        #: A transaction was begun, and is not ended: the next message must not go over this connection.
        self.in_transaction = False
        #: The recipients that the server has accepted in this transaction.
        self._accepted: list[str] = []
        super().__init__(*args, **kwargs)

    def getreply(self) -> Reply:
        """Read a reply; a malformed one raises SMTPServerDisconnected."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("The connection is closed")
        if self.file is None:
            self.file = Replies(self.sock)
        self.file.budget = REPLY_SIZE
        try:
            answer = super().getreply()
        except smtplib.SMTPServerDisconnected as error:
            if self._deadline.fired:
                raise smtplib.SMTPServerDisconnected("The time for this message is over") from error
            raise
        if not 200 <= answer[0] < 600:
            self.close()
            raise smtplib.SMTPServerDisconnected("The server does not speak SMTP")
        return answer

    def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """Begin a transaction; a connection that is lost here is a 421."""
        self.in_transaction, self._accepted = True, []
        try:
            return super().mail(sender, options)
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPSenderRefused(_CLOSING, str(error).encode(), sender) from error

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> Reply:
        """Name a recipient, and note what the server says."""
        answer = super().rcpt(recip, options)
        self._note(recip, answer)
        return answer

    def _note(self, recipient: str, answer: Reply) -> None:
        if answer[0] in _ACCEPTED:
            self._accepted.append(recipient)
        else:
            self.transcript.refused[recipient] = answer

    def rset(self) -> Reply:
        """End a transaction; close the connection when the server does not agree."""
        answer = super().rset()
        if answer[0] == 250:
            self.in_transaction = False
        else:
            self.close()
        return answer

    def quit(self) -> Reply:
        """Say goodbye, without waiting long for the answer."""
        with self._deadline.shortened(QUIT_TIMEOUT):
            return super().quit()

    def usable(self) -> bool:
        """Return whether the next message can go over this connection."""
        return self.sock is not None and self.file is not None and self.file.quiet()

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: Any,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, Reply]:
        """Send a message as smtplib does, to each address once. Raises OutOfStep too."""
        recipients = self.transcript.recipients = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        # Until RSET, or the reply to the final dot: whatever fails in between leaves the transaction open.
        self.in_transaction = True
        addresses = list(dict(zip(map(smtplib.quoteaddr, recipients), recipients, strict=True)).values())
        may_pipeline = self.may_pipeline and isinstance(msg, bytes) and len(addresses) <= PIPELINED_RECIPIENTS
        if may_pipeline and not (mail_options or rcpt_options) and self.has_extn("pipelining"):
            refused = self._pipeline(from_addr, addresses, msg)
        else:
            refused = super().sendmail(from_addr, addresses, msg, mail_options, rcpt_options)
        self.in_transaction = False
        return refused

    def _pipeline(self, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, Reply]:
        """Send a message; return and raise what smtplib's sendmail() does."""
        self._accepted = []
        to_mail, to_recipients, to_data = exchange(self, sender, recipients, len(message))
        refused: dict[str, Reply] = {}
        for recipient, answer in zip(recipients, to_recipients, strict=True):
            if answer[0] not in _ACCEPTED:
                refused[recipient] = answer
            elif to_mail[0] == 250:
                self._accepted.append(recipient)
        if to_mail[0] == 250:
            self.transcript.refused.update(refused)
        if to_data[0] == 354 and self._accepted:
            to_data = self.send_body(message)
            if to_data[0] == 250:
                return refused
        elif to_data[0] == 354:
            send_nothing(self)
        self.leave_transaction(to_mail, *to_recipients, to_data)
        if to_mail[0] != 250:
            raise smtplib.SMTPSenderRefused(*to_mail, sender)
        if not self._accepted:
            raise smtplib.SMTPRecipientsRefused(refused)
        raise smtplib.SMTPDataError(*to_data)

    def data(self, msg: Any) -> Reply:
        """Send DATA and the message, and return the reply to its end. Raises SMTPDataError when DATA is refused."""
        self.putcmd("data")
        answer = self.getreply()
        if answer[0] != 354:
            # smtplib would leave the server in mid-transaction.
            self.leave_transaction(answer)
            raise smtplib.SMTPDataError(*answer)
        return self.send_body(smtplib._fix_eols(msg).encode("ascii") if isinstance(msg, str) else msg)  # type: ignore[attr-defined]

    def leave_transaction(self, *replies: Reply) -> None:
        """Make the connection ready for the next message after one was refused with these replies."""
        if any(code == _CLOSING for code, _ in replies):
            self.close()
        else:
            self._rset()  # type: ignore[attr-defined]

    def send_body(self, message: bytes) -> Reply:
        """Send the message and its final dot, and return the reply.

        Raises OutOfStep when the server speaks before the dot. A reply that is lost leaves open whether the
        message arrives.
        """
        start = 0
        while end := message.find(b"\n", start + CHUNK) + 1:
            self.send(_LEADING_DOT.sub(b"..", message[start:end]))
            start = end
        if self.file is not None and self.file.surplus():
            self.close()
            raise OutOfStep("The server spoke before the end of the message")
        self.send(_LEADING_DOT.sub(b"..", message[start:]) + (b".\r\n" if message.endswith(b"\r\n") else b"\r\n.\r\n"))
        try:
            answer = self.getreply()
            unasked = self.file.surplus() if self.file else b""
            # A server that says that it closes may do so at any time.
            if not (answer[0] == 250 or 400 <= answer[0] < 600) or (unasked and not unasked.startswith(b"421")):
                self.close()
                raise smtplib.SMTPServerDisconnected(f"It cannot be told what {answer} answers")
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPServerDisconnected(f"{error}; the whole message was sent: it may arrive twice") from error
        if answer[0] == 250:
            self.transcript.accepted += self._accepted
        return answer


class DeliverySMTP(DeliveryMixin, DeadlineSMTP):
    """smtplib's SMTP for a drain."""


class DeliverySMTPOverSSL(DeliveryMixin, smtplib.SMTP_SSL, DeadlineSMTP):
    """smtplib's SMTP_SSL for a drain."""
