"""A worker's connection to one mailer: its state, and the number of messages sent over it."""

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
from ..transport.sockets import TIME_IS_OVER
from .deadlines import Deadline
from .mailer import Mailer

logger = get_logger("delivery")

#: Maximum number of messages per connection, a limit that many servers have.
MESSAGES_PER_CONNECTION = 100
#: Consecutive refusals after which a connection is closed. Postfix slows down its replies after many errors.
REFUSALS_PER_CONNECTION = 4
#: Seconds to connect while other sessions are connected: a server at its connection limit may never answer.
FURTHER_CONNECTION_SECONDS = 10

#: Django's method. While a test patches it, transact() opens no connection, since there may be no server.
_SEND_MESSAGES = SMTPBackend.send_messages

#: ``message`` is the message that this thread is delivering, which must not be queued again.
in_delivery = local()


class State(Enum):
    """The states of a link."""

    CLOSED = "no connection"
    OPEN = "a connection, which may carry the next message"
    REFUSED = "could not connect while other sessions are connected; do not retry"


class Link:
    """Opens, uses and closes the connection of a backend. Not thread-safe."""

    def __init__(self, mailer: Mailer, backend: Any, deadline: Deadline) -> None:
        self.mailer = mailer
        self.backend = backend
        self.deadline = deadline
        self.state = State.CLOSED
        #: Whether the link has ever connected, which shows that the server answers.
        self.has_connected = False
        #: Whether connecting has failed for the current message.
        self.has_failed = False
        #: Whether the link is connecting or sending, so that a call of backend.open() comes from the link itself.
        self.is_busy = False
        #: Whether the last transaction was pipelined.
        self.was_pipelined = False
        #: Messages sent over the connection, delivered or not, except those whose MAIL was refused.
        self._message_count = 0
        #: Messages that the server accepted over the connection.
        self.accepted = 0
        #: Refusals since the last accepted message.
        self._refusals = 0

    def transact(self, message: Any, transcript: Transcript, may_pipeline: bool) -> Any:
        """Send a message through the backend's own methods, and return the number that it reports as sent."""
        if SMTPBackend.send_messages is _SEND_MESSAGES:
            self.connect()
        connection = getattr(self.backend, "connection", None)
        if isinstance(connection, DeliveryMixin):
            connection.transcript, connection.may_pipeline = transcript, may_pipeline
        refused, accepted = len(transcript.refused), len(transcript.accepted)
        self._message_count += 1
        sent: Any = None
        self.is_busy, in_delivery.message = True, message
        try:
            sent = self.backend._send_now(message)
        except SMTPSenderRefused:
            self._message_count -= 1
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
        """Ensure a usable connection. Raises the error of the backend's open(), or the one that blocked the mailer."""
        if self.state is State.OPEN:
            self._retire()
        if self.state is not State.OPEN:
            self._open()

    def _retire(self) -> None:
        """Close a connection that is lost, or that has reached its maximum of messages or refusals."""
        connection = getattr(self.backend, "connection", None)
        if isinstance(connection, DeliveryMixin):
            usable = connection.usable()
        else:
            usable = not isinstance(self.backend, SMTPBackend) or bool(getattr(connection, "sock", True))
        if not usable:
            self.drop()
        elif self._message_count >= MESSAGES_PER_CONNECTION or self._refusals >= REFUSALS_PER_CONNECTION:
            self.hang_up()

    def _open(self) -> None:
        """Open the backend. A failure blocks the mailer, unless other sessions are connected."""
        if isinstance(self.mailer.blocked, Exception):
            self.has_failed = True
            raise self.mailer.blocked.with_traceback(None)
        if self.deadline.fired:
            raise SMTPServerDisconnected(TIME_IS_OVER)
        self.is_busy = True
        try:
            with self.deadline.shortened(FURTHER_CONNECTION_SECONDS) if self.mailer.connected else nullcontext():
                self.backend.open()
                connection = getattr(self.backend, "connection", None)
                if isinstance(connection, DeliveryMixin):
                    # A server that refuses EHLO here does not refuse the message.
                    connection.ehlo_or_helo_if_needed()
            self.state, self.has_connected = State.OPEN, True
            self._message_count = self.accepted = self._refusals = 0
            self.mailer.connected.add(self)
        except interrupts():
            raise
        except Exception as error:
            if self.deadline.fired and self.has_connected:
                raise  # the message ran out of time: this need not be the server's fault
            self.has_failed = True
            if self.mailer.note_failed_connection(self, error):
                self.state = State.REFUSED
            raise
        finally:
            self.is_busy = False
            if self.state is not State.OPEN:
                # open() may have failed before STARTTLS or the login.
                self.drop()

    def hang_up(self) -> None:
        """Close the connection; ignore errors."""
        self._mark_closed()
        try:
            self.backend.close()
        except interrupts():
            raise
        except Exception:  # the backend may use any transport
            logger.debug("Closing the connection failed.", exc_info=True)

    def drop(self) -> None:
        """Close the connection without QUIT, even if open() has not finished."""
        self._mark_closed()
        for name in ("connection", "_partial_connection"):
            connection = getattr(self.backend, name, None)
            if connection is not None and isinstance(self.backend, SMTPBackend):
                setattr(self.backend, name, None)
                with suppress(OSError):
                    connection.close()
        self.deadline.release()

    def _mark_closed(self) -> None:
        if self.state is State.OPEN:
            self.state = State.CLOSED
        self.mailer.connected.discard(self)
