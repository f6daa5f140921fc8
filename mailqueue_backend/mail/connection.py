"""The SMTP connection of a drain: smtplib's, which also tells who was refused, pipelines, and ends at a deadline."""

from __future__ import annotations

import re
import smtplib
import socket
import ssl
from collections.abc import Sequence
from typing import Any

from ..delivery.deadlines import Deadline
from .pipelining import PIPELINED_RECIPIENTS, pipeline
from .replies import Replies

#: Seconds that the server has to answer QUIT.
QUIT_TIMEOUT = 5
_LEADING_DOT = re.compile(rb"(?m)^\.")


class HeldContext:
    """An SSL context whose handshake is under the deadline too."""

    def __init__(self, context: ssl.SSLContext, deadline: Deadline) -> None:
        self._context = context
        self._deadline = deadline

    def wrap_socket(self, plain: socket.socket, server_hostname: str | None = None) -> ssl.SSLSocket:
        """Wrap and shake hands."""
        wrapped = self._context.wrap_socket(plain, server_hostname=server_hostname, do_handshake_on_connect=False)
        self._deadline.hold(wrapped)
        wrapped.do_handshake()
        return wrapped


class DeliveryMixin(smtplib.SMTP):
    """What a drain adds to smtplib's SMTP and SMTP_SSL."""

    file: Replies | None

    def __init__(self, *args: Any, deadline: Deadline, pipelining: bool = True, **kwargs: Any) -> None:
        self._deadline = deadline
        self._pipelining = pipelining
        #: The recipients of the last message as they were sent.
        self.recipients: list[str] = []
        #: The replies to those of them who were refused, where somebody was not.
        self.refused: dict[str, tuple[int, bytes]] = {}
        #: Messages that were begun on this connection.
        self.carried = 0
        if "context" in kwargs:
            kwargs["context"] = HeldContext(kwargs["context"], deadline)
        super().__init__(*args, **kwargs)

    def _get_socket(self, *args: Any) -> socket.socket:
        connected: socket.socket = super()._get_socket(*args)  # type: ignore[misc]
        self._deadline.hold(connected)
        # The final dot must not wait for the acknowledgement of what goes before.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connected

    def starttls(self, *, context: ssl.SSLContext) -> tuple[int, bytes]:  # type: ignore[override]
        """Start TLS as smtplib does."""
        held: Any = HeldContext(context, self._deadline)
        return super().starttls(context=held)

    def getreply(self) -> tuple[int, bytes]:
        """Read a reply; a lost connection is one whose reply is torn or endless, too, or whose deadline is over."""
        if self.sock is None:
            raise smtplib.SMTPServerDisconnected("The connection is closed")
        if self.file is None:
            self.file = Replies(self.sock)
        self.file.begin()
        answer = super().getreply()
        if self._deadline.fired:
            self.close()
            raise smtplib.SMTPServerDisconnected("The time for this message is over")
        return answer

    def quit(self) -> tuple[int, bytes]:
        """Take leave, without waiting long for the answer."""
        if self.sock is not None:
            self.sock.settimeout(QUIT_TIMEOUT)
        return super().quit()

    def surplus(self) -> bool:
        """Tell whether the server has said something that nobody has asked for."""
        return self.file is not None and self.file.surplus()

    def usable(self) -> bool:
        """Tell whether the next message can go over this connection."""
        return self.sock is not None and self.file is not None and not (self.file.surplus() or self.file.ended())

    def sendmail(
        self,
        from_addr: str,
        to_addrs: str | Sequence[str],
        msg: Any,
        mail_options: Sequence[str] = (),
        rcpt_options: Sequence[str] = (),
    ) -> dict[str, tuple[int, bytes]]:
        """Send a message as smtplib does, remember who was refused. Raises PipeliningFailed besides."""
        self.ehlo_or_helo_if_needed()
        self.recipients = [to_addrs] if isinstance(to_addrs, str) else list(to_addrs)
        self.refused = {}
        self.carried += 1
        if self._can_pipeline(msg, mail_options, rcpt_options):
            self.refused = pipeline(self, from_addr, self.recipients, msg)
        else:
            self.refused = super().sendmail(from_addr, self.recipients, msg, mail_options, rcpt_options)
        return self.refused

    def _can_pipeline(self, message: Any, *options: Sequence[str]) -> bool:
        return (
            self._pipelining
            and self.has_extn("pipelining")
            and isinstance(message, bytes)
            and not any(options)
            and len(self.recipients) <= PIPELINED_RECIPIENTS
        )

    def data(self, msg: Any) -> tuple[int, bytes]:
        """Send DATA and the message, and give the reply to its end. Raises SMTPDataError when DATA is refused."""
        self.putcmd("data")
        answer = self.getreply()
        if answer[0] != 354:
            raise smtplib.SMTPDataError(*answer)
        return self.send_body(msg)

    def send_body(self, message: bytes) -> tuple[int, bytes]:
        """Send the message and its final dot, and give the reply. One that is lost leaves open whether it arrives."""
        body = _LEADING_DOT.sub(b"..", message)
        self.send(body if body.endswith(b"\r\n") else body + b"\r\n")
        self.send(b".\r\n")
        try:
            answer = self.getreply()
            if self.surplus():
                self.close()
                raise smtplib.SMTPServerDisconnected("More replies than commands")
        except smtplib.SMTPServerDisconnected as error:
            raise smtplib.SMTPServerDisconnected(f"{error}; the whole message was sent: it may arrive twice") from error
        return answer


class DeliverySMTP(DeliveryMixin, smtplib.SMTP):
    """smtplib's SMTP for a drain."""


class DeliverySMTPOverSSL(DeliveryMixin, smtplib.SMTP_SSL):
    """smtplib's SMTP_SSL for a drain."""
