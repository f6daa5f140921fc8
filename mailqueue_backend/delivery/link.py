"""A worker's connection to one mailer: whether it is open, and what it has carried."""

from __future__ import annotations

from contextlib import nullcontext, suppress
from enum import Enum
from smtplib import SMTPSenderRefused, SMTPServerDisconnected
from threading import local
from typing import Any

from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..errors import interrupts
from ..logs import get_logger
from ..transport.connection import DeliveryMixin, Transcript
from .deadlines import Deadline
from .mailer import Mailer

logger = get_logger("delivery")

#: Maximum number of messages per connection; a common limit of servers.
MESSAGES_PER_CONNECTION = 100
#: Refusals in a row after which a connection is closed. Postfix answers a client that has caused many errors slowly.
REFUSALS_PER_CONNECTION = 4
#: Seconds to connect while other sessions are connected: a server that is at its limit may never answer.
FURTHER_CONNECTION_SECONDS = 10

#: Django's method. While a test patches it, no connection is made: nothing may be sent, and no server exists.
_SEND_MESSAGES = SMTPBackend.send_messages

#: ``message`` is the message that this thread is delivering, which must not be queued again.
in_delivery = local()


class State(Enum):
    """The states of a link."""

    CLOSED = "no connection"
    OPEN = "a connection, which may carry the next message"
    REFUSED = "could not connect while other sessions are connected; do not retry"


class Link:
    """Opens, uses and closes the connection of a backend. For one thread."""

    def __init__(self, mailer: Mailer, backend: Any, deadline: Deadline) -> None:
        self.mailer = mailer
        self.backend = backend
        self.deadline = deadline
        self.state = State.CLOSED
        #: Whether it has ever connected, which shows that the server answers.
        self.has_connected = False
        #: Whether no connection could be made for the current message.
        self.has_failed = False
        #: Whether it is connecting or sending itself, so that a call of backend.open() is part of that.
        self.is_busy = False
        #: Whether the last transaction was pipelined.
        self.was_pipelined = False
        #: Messages that the connection has carried, delivered or not, except those whose MAIL was refused.
        self._carried = 0
        #: Messages that the server has accepted over the connection.
        self.accepted = 0
        #: Replies of refusal since the last of these.
        self._refusals = 0

    def transact(self, message: Any, transcript: Transcript, may_pipeline: bool) -> Any:
        """Send a message through the backend's own class, and return its count of messages sent."""
        if SMTPBackend.send_messages is _SEND_MESSAGES:
            self.connect()
        connection = getattr(self.backend, "connection", None)
        if isinstance(connection, DeliveryMixin):
            connection.transcript, connection.may_pipeline = transcript, may_pipeline
        refused, accepted = len(transcript.refused), len(transcript.accepted)
        self._carried += 1
        sent: Any = None
        self.is_busy, in_delivery.message = True, message
        try:
            sent = self.backend._send_now(message)
        except SMTPSenderRefused:
            self._carried -= 1
            self._refusals += 1
            raise
        finally:
            self.is_busy, in_delivery.message = False, None
            connection = getattr(self.backend, "connection", None)
            self.was_pipelined = isinstance(connection, DeliveryMixin) and connection.was_pipelined
            if sent or len(transcript.accepted) > accepted:
                self.accepted, self._refusals = self.accepted + 1, 0
            else:
                self._refusals += len(transcript.refused) - refused
            if connection.in_transaction if isinstance(connection, DeliveryMixin) else not sent:
                self.drop()
        return sent

    def connect(self) -> None:
        """Ensure a usable connection. Raises what the backend's open() raises, or raised before."""
        if self.state is State.OPEN:
            self._retire()
        if self.state is not State.OPEN:
            self._open()

    def _retire(self) -> None:
        """Close a connection that is lost, that has carried enough, or whose server may begin to answer slowly."""
        connection = getattr(self.backend, "connection", None)
        if isinstance(connection, DeliveryMixin):
            usable = connection.usable()
        else:
            usable = not isinstance(self.backend, SMTPBackend) or bool(getattr(connection, "sock", True))
        if not usable:
            self.drop()
        elif self._carried >= MESSAGES_PER_CONNECTION or self._refusals >= REFUSALS_PER_CONNECTION:
            self.hang_up()

    def _open(self) -> None:
        """Open the backend; a failure blocks the mailer, so that no session tries again."""
        if isinstance(self.mailer.blocked, Exception):
            self.has_failed = True
            raise self.mailer.blocked.with_traceback(None)
        if self.deadline.fired:
            raise SMTPServerDisconnected("the time for this message is over")
        self.is_busy = True
        try:
            with self.deadline.shortened(FURTHER_CONNECTION_SECONDS) if self.mailer.connected else nullcontext():
                self.backend.open()
                connection = getattr(self.backend, "connection", None)
                if isinstance(connection, DeliveryMixin):
                    # A server that refuses the greeting refuses no message.
                    connection.ehlo_or_helo_if_needed()
            self.state, self.has_connected = State.OPEN, True
            self._carried = self.accepted = self._refusals = 0
            self.mailer.connected.add(self)
        except interrupts():
            raise
        except Exception as error:
            if self.deadline.fired and self.has_connected:
                raise  # the message has used up its time; that says nothing of the server
            self.has_failed = True
            if self.mailer.note_failed_connection(self, error):
                self.state = State.REFUSED
            raise
        finally:
            self.is_busy = False
            if self.state is not State.OPEN:
                # It may lack its TLS or its login.
                self.drop()

    def hang_up(self) -> None:
        """Close the connection; ignore errors."""
        self._forget()
        try:
            self.backend.close()
        except interrupts():
            raise
        except Exception:  # any transport may stand behind
            logger.debug("Closing the connection failed.", exc_info=True)

    def drop(self) -> None:
        """Close the connection without sending QUIT, even if it is only half open."""
        self._forget()
        for name in ("connection", "_partial_connection"):
            connection = getattr(self.backend, name, None)
            if connection is not None and isinstance(self.backend, SMTPBackend):
                setattr(self.backend, name, None)
                with suppress(OSError):
                    connection.close()
        self.deadline.release()

    def _forget(self) -> None:
        if self.state is State.OPEN:
            self.state = State.CLOSED
        self.mailer.connected.discard(self)
