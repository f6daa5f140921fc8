"""The SMTP connection of a drain: smtplib's, plus a transcript of the replies, pipelining and a deadline."""

from __future__ import annotations

import re
import smtplib
from collections.abc import Collection, Sequence
from typing import Any, Literal

from .pipelining import PIPELINED_RECIPIENTS, OutOfStep, Reply, exchange, send_empty_message
from .replies import REPLY_SIZE, Replies
from .sockets import TIME_IS_OVER, Deadline, DeadlineSMTP

#: Seconds to wait for the reply to QUIT.
QUIT_TIMEOUT = 5
#: Bytes of a message per send(); the socket's timeout applies to each call.
CHUNK = 64 * 1024
#: Seconds to wait for the reply to a step, if the site configures no timeout (RFC 5321, section 4.5.3.2).
STEP_TIMEOUTS = {"DATA": 120, "block": 180, "dot": 600}
#: The same for all other steps.
OTHER_STEPS_TIMEOUT = 300
#: The reply of a server that closes the connection.
_CLOSING = 421
#: The replies that accept a recipient.
_ACCEPTED = (250, 251)
_LEADING_DOT = re.compile(rb"(?m)^\.")


class Transcript:
    """The server's replies about one message, over all its transactions and connections.

    Addresses are spelled as they were passed to sendmail().
    """

    def __init__(self) -> None:
        #: The recipients of the latest sendmail().
        self.recipients: list[str] = []
        #: The recipients for which the server accepted the message.
        self.accepted: list[str] = []
        #: The latest reply that accepted the message; None: none has.
        self.reply: Reply | None = None
        #: The replies to RCPT, by refused recipient.
        self.refused: dict[str, Reply] = {}
        #: The last step of a transaction: "MAIL", "RCPT", "DATA", "block" (of the message) or "dot".
        self.step: Literal["MAIL", "RCPT", "DATA", "block", "dot"] = "dot"
        #: The recipients that sendmail() must leave out.
        self.skip: Collection[str] = ()


class DeliveryMixin(smtplib.SMTP):
    """Our additions to smtplib's SMTP and SMTP_SSL."""

    file: Replies | None

    def __init__(self, *args: Any, deadline: Deadline, waits_as_rfc: bool = False, **kwargs: Any) -> None:
        self._deadline = deadline
        #: Whether to use the timeouts of RFC 5321 for each step, instead of one timeout for all.
        self._waits_as_rfc = waits_as_rfc
        #: The step whose timeout is set on the socket; None: the timeout for connecting.
        self._timed_step: str | None = None
        #: Whether the last transaction was pipelined.
        self.was_pipelined = False
        #: Whether to pipeline if the server announces PIPELINING.
        self.may_pipeline = True
        #: The transcript of the current message; the session sets a new one for each message.
        self.transcript = Transcript()
        #: Whether a transaction is open; if so, the connection must not be used for the next message.
        self.in_transaction = False
        #: The recipients that the server has accepted in the current transaction.
        self._accepted: list[str] = []
        super().__init__(*args, **kwargs)

    def getreply(self) -> Reply:
        """Read a reply; a malformed one raises SMTPServerDisconnected."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("The connection is closed")
        if self.file is None:
            self.file = Replies(self.sock)
        self.file.budget = REPLY_SIZE
        step = self.transcript.step if self.in_transaction else ""
        if self._waits_as_rfc and step != self._timed_step:
            self._set_timeout(step)
        try:
            answer = super().getreply()
        except smtplib.SMTPServerDisconnected as error:
            if self._deadline.fired:
                raise smtplib.SMTPServerDisconnected(TIME_IS_OVER) from error
            raise
        if not 200 <= answer[0] < 600:
            self.close()
            raise smtplib.SMTPServerDisconnected("The server does not speak SMTP")
        return answer

    def _set_timeout(self, step: str) -> None:
        if self._waits_as_rfc and self.sock is not None:
            self.sock.settimeout(STEP_TIMEOUTS.get(step, OTHER_STEPS_TIMEOUT))
            self._timed_step = step

    def mail(self, sender: str, options: Sequence[str] = ()) -> Reply:
        """Begin a transaction; treat a connection that is lost here as a 421 reply."""
        self.in_transaction, self._accepted = True, []
        self.transcript.step = "MAIL"
        try:
            return super().mail(sender, options)
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPSenderRefused(_CLOSING, str(error).encode(), sender) from error

    def rcpt(self, recip: str, options: Sequence[str] = ()) -> Reply:
        """Add a recipient, and record the reply."""
        self.transcript.step = "RCPT"
        answer = super().rcpt(recip, options)
        if answer[0] in _ACCEPTED:
            self._accepted.append(recip)
        else:
            self.transcript.refused[recip] = answer
        return answer

    def rset(self) -> Reply:
        """Abort the transaction; close the connection if the server refuses RSET."""
        answer = super().rset()
        if answer[0] == 250:
            self.in_transaction = False
        else:
            self.close()
        return answer

    def quit(self) -> Reply:
        """Send QUIT, and wait up to QUIT_TIMEOUT for the reply."""
        with self._deadline.shortened(QUIT_TIMEOUT):
            return super().quit()

    def usable(self) -> bool:
        """Return whether the connection is open and the server has sent nothing unexpected."""
        return self.sock is not None and self.file is not None and self.file.quiet()

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: Any,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, Reply]:
        """Send a message as smtplib does, but once to each address, and to none of ``skip``. May raise OutOfStep."""
        recipients = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        by_address = dict(zip(map(_unified, recipients), recipients, strict=True))
        self.transcript.recipients = list(by_address.values())
        addresses = [address for address in self.transcript.recipients if address not in self.transcript.skip]
        if recipients and not addresses:
            return {}
        # Only RSET or the reply to the final dot ends the transaction; any other failure leaves it open.
        self.in_transaction = True
        may_pipeline = self.may_pipeline and isinstance(msg, bytes) and len(addresses) <= PIPELINED_RECIPIENTS
        self.was_pipelined = may_pipeline and not (mail_options or rcpt_options) and self.has_extn("pipelining")
        if self.was_pipelined:
            refused = self._pipeline(from_addr, addresses, msg)
        else:
            refused = super().sendmail(from_addr, addresses, msg, mail_options, rcpt_options)
        self.in_transaction = False
        return refused

    def _pipeline(self, sender: str, recipients: Sequence[str], message: bytes) -> dict[str, Reply]:
        """Send a message with pipelining. Returns and raises the same as smtplib's sendmail()."""
        self._accepted = []
        self.transcript.step = "RCPT"
        to_mail, to_recipients, to_data = exchange(self, sender, recipients, len(message))
        refused: dict[str, Reply] = {}
        for recipient, answer in zip(recipients, to_recipients, strict=True):
            if answer[0] not in _ACCEPTED:
                refused[recipient] = answer
            elif to_mail[0] == 250:
                self._accepted.append(recipient)
        if to_mail[0] == 250:
            self.transcript.refused.update(refused)
        self.transcript.step = "DATA"
        if to_data[0] == 354 and self._accepted:
            to_data = self.send_body(message)
            if to_data[0] == 250:
                return refused
        elif to_data[0] == 354:
            send_empty_message(self)
        self.leave_transaction(to_mail, *to_recipients, to_data)
        if to_mail[0] != 250:
            raise smtplib.SMTPSenderRefused(*to_mail, sender)
        if not self._accepted:
            raise smtplib.SMTPRecipientsRefused(refused)
        raise smtplib.SMTPDataError(*to_data)

    def data(self, msg: Any) -> Reply:
        """Send DATA and the message, and return the reply to the final dot. Raises SMTPDataError if DATA is refused."""
        self.transcript.step = "DATA"
        self.putcmd("data")
        answer = self.getreply()
        if answer[0] != 354:
            # smtplib would leave the transaction open.
            self.leave_transaction(answer)
            raise smtplib.SMTPDataError(*answer)
        return self.send_body(smtplib._fix_eols(msg).encode("ascii") if isinstance(msg, str) else msg)  # type: ignore[attr-defined]

    def leave_transaction(self, *replies: Reply) -> None:
        """Abort a transaction that was refused with these replies; close the connection after a 421."""
        if any(code == _CLOSING for code, _ in replies):
            self.close()
        else:
            self._rset()  # type: ignore[attr-defined]

    def send_body(self, message: bytes) -> Reply:
        """Send the message and its final dot, and return the reply.

        Raises OutOfStep if the server sends anything before the dot. If the reply is lost, the message may or may
        not have been accepted.
        """
        self.transcript.step = "block"
        self._set_timeout("block")
        start = 0
        while end := message.find(b"\n", start + CHUNK) + 1:
            self.send(_LEADING_DOT.sub(b"..", message[start:end]))
            start = end
        if self.file is not None and self.file.surplus():
            self.close()
            raise OutOfStep("The server sent a reply before the end of the message")
        self.transcript.step = "dot"
        self._deadline.extend_for_dot()
        self.send(_LEADING_DOT.sub(b"..", message[start:]) + (b".\r\n" if message.endswith(b"\r\n") else b"\r\n.\r\n"))
        try:
            answer = self.getreply()
            surplus = self.file.surplus() if self.file else b""
            # A server may announce at any time that it closes the connection.
            if not (answer[0] == 250 or 400 <= answer[0] < 600) or (surplus and not surplus.startswith(b"421")):
                self.close()
                raise smtplib.SMTPServerDisconnected(f"The reply {answer} does not match the final dot")
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPServerDisconnected(f"{error}; the whole message was sent: it may arrive twice") from error
        if answer[0] == 250:
            self.transcript.accepted += self._accepted
            self.transcript.reply = answer
        return answer


def _unified(address: str) -> str:
    """Return what two spellings of an address have in common: the case of a domain does not matter."""
    local, at, domain = smtplib.quoteaddr(address).rpartition("@")
    return f"{local}{at}{domain.lower()}"


class DeliverySMTP(DeliveryMixin, DeadlineSMTP):
    """smtplib's SMTP for a drain."""


class DeliverySMTPOverSSL(DeliveryMixin, smtplib.SMTP_SSL, DeadlineSMTP):
    """smtplib's SMTP_SSL for a drain."""
