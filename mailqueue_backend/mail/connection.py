"""The SMTP connection of a drain: smtplib's, which also tells who was refused, pipelines, and ends at a deadline."""

from __future__ import annotations

import re
import smtplib
import ssl
from collections.abc import Sequence
from threading import Event
from typing import Any

from ..delivery.deadlines import Deadline
from .held import HeldContext, HeldSMTP
from .pipelining import PIPELINED_RECIPIENTS, OutOfStep, Reply, pipeline
from .replies import Replies

#: Seconds that the server has to answer QUIT.
QUIT_TIMEOUT = 5
#: Bytes of a message that are sent in one go: each go has the time-out of its own.
CHUNK = 64 * 1024
_CLOSING = 421
_LEADING_DOT = re.compile(rb"(?m)^\.")


class DeliveryMixin(smtplib.SMTP):
    """What a drain adds to smtplib's SMTP and SMTP_SSL."""

    file: Replies | None

    def __init__(self, *args: Any, deadline: Deadline, plain: Event, **kwargs: Any) -> None:
        self._deadline = deadline
        #: Set: no pipelining.
        self._plain = plain
        #: The recipients of the last message as they were given.
        self.recipients: list[str] = []
        #: The replies to those of them who were refused, where somebody was not.
        self.refused: dict[str, Reply] = {}
        #: A message was begun, and neither sent nor given up: the next must not go over this connection.
        self.in_transaction = False
        if "context" in kwargs:
            kwargs["context"] = HeldContext(kwargs["context"], deadline)
        super().__init__(*args, **kwargs)

    def starttls(self, *, context: ssl.SSLContext) -> Reply:  # type: ignore[override]
        """Start TLS as smtplib does."""
        held: Any = HeldContext(context, self._deadline)
        return super().starttls(context=held)

    def getreply(self) -> Reply:
        """Read a reply; a lost connection is one, too, whose reply is torn, endless or none at all."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("The connection is closed")
        if self.file is None:
            self.file = Replies(self.sock)
        self.file.begin()
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
        """Begin a message. A server that hangs up says a 421 with fewer words."""
        try:
            return super().mail(sender, options)
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPSenderRefused(_CLOSING, str(error).encode(), sender) from error

    def rset(self) -> Reply:
        """Give up a message; a server that does not agree has lost us."""
        answer = super().rset()
        if answer[0] == 250:
            self.in_transaction = False
        else:
            self.close()
        return answer

    def quit(self) -> Reply:
        """Take leave, without waiting long for the answer."""
        with self._deadline.shortened(QUIT_TIMEOUT):
            return super().quit()

    def usable(self) -> bool:
        """Tell whether the next message can go over this connection."""
        return self.sock is not None and self.file is not None and self.file.quiet()

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: Any,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, Reply]:
        """Send a message as smtplib does, to each address once, and remember who was refused. Raises OutOfStep too."""
        self.recipients = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        self.refused = {}
        self.in_transaction = True
        addresses = list({smtplib.quoteaddr(recipient): recipient for recipient in self.recipients}.values())
        if self._can_pipeline(addresses, msg, mail_options, rcpt_options):
            self.refused = pipeline(self, from_addr, addresses, msg)
        else:
            self.refused = super().sendmail(from_addr, addresses, msg, mail_options, rcpt_options)
        self.in_transaction = False
        return self.refused

    def _can_pipeline(self, addresses: list[str], message: Any, *options: Sequence[str]) -> bool:
        return (
            not self._plain.is_set()
            and self.has_extn("pipelining")
            and isinstance(message, bytes)
            and not any(options)
            and len(addresses) <= PIPELINED_RECIPIENTS
        )

    def data(self, msg: Any) -> Reply:
        """Send DATA and the message, and give the reply to its end. Raises SMTPDataError when DATA is refused."""
        self.putcmd("data")
        answer = self.getreply()
        if answer[0] != 354:
            # smtplib would leave the server in mid-transaction.
            self.leave_transaction(answer)
            raise smtplib.SMTPDataError(*answer)
        return self.send_body(msg)

    def leave_transaction(self, *replies: Reply) -> None:
        """Make the connection ready for the next message after one was refused with these replies."""
        if any(code == _CLOSING for code, _ in replies):
            self.close()
        else:
            self._rset()  # type: ignore[attr-defined]

    def send_body(self, message: bytes) -> Reply:
        """Send the message and its final dot, and give the reply.

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
        return self._last_reply()

    def _last_reply(self) -> Reply:
        try:
            answer = self.getreply()
            if not (answer[0] == 250 or 400 <= answer[0] < 600) or (self.file and self.file.out_of_step()):
                self.close()
                raise smtplib.SMTPServerDisconnected(f"It cannot be told what {answer} answers")
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPServerDisconnected(f"{error}; the whole message was sent: it may arrive twice") from error
        return answer


class DeliverySMTP(DeliveryMixin, HeldSMTP):
    """smtplib's SMTP for a drain."""


class DeliverySMTPOverSSL(DeliveryMixin, smtplib.SMTP_SSL, HeldSMTP):
    """smtplib's SMTP_SSL for a drain."""
