"""One worker's connection to one mailer. It carries one message after the other."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from enum import Enum
from smtplib import SMTPSenderRefused, SMTPServerDisconnected
from threading import local
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..envelope import Meta
from ..errors import interrupts
from ..logs import get_logger
from ..transport.connection import DeliveryMixin, Transcript
from ..transport.pipelining import OutOfStep
from ..transport.rendering import with_encoded_attachments
from .addressing import addressed_to, names_of, plain_text, with_addresses
from .deadlines import Deadline
from .limits import StopRequest
from .mailer import Mailer
from .policy import Attempt, Refusal, judge
from .report import DOQUEUE, SENT, Outcome

logger = get_logger("delivery")

#: Maximum number of messages per connection; a common limit of servers.
MESSAGES_PER_CONNECTION = 100
#: Socket timeout in seconds, if none is configured.
TIMEOUT = 60
#: Replies to MAIL that may only mean that the connection has carried enough messages.
_CONNECTION_EXHAUSTED = (421, 452)
#: The error of a message if the backend returns that it sent none.
NOT_SENT = "nobody to send it to, or not sent"

#: Django's method. While a test patches it, the session does not connect: nothing may be sent, and no server exists.
_SEND_MESSAGES = SMTPBackend.send_messages
#: Django's method. Attachments are encoded in advance only if the backend uses it, since an override may read them.
_SEND = vars(SMTPBackend)["_send"]

#: ``message`` is the message that this thread is delivering, which must not be queued again.
in_delivery = local()


class State(Enum):
    """The state of a session's connection."""

    CLOSED = "no connection"
    OPEN = "a connection, which may carry the next message"
    REFUSED = "could not connect while other sessions are connected; do not retry"


class Session:
    """Delivers messages through a backend, over one connection while it lasts. Not thread-safe.

    While the session exists, ``backend.open()`` connects and the backend raises errors; otherwise it only queues.
    """

    def __init__(self, mailer: Mailer, backend: Any, deadline: Deadline, stop: StopRequest) -> None:
        self.mailer = mailer
        self.backend = backend
        self.deadline = deadline
        self.state = State.CLOSED
        #: Whether the session has ever connected, which shows that the server answers.
        self.has_connected = False
        #: Whether the session itself is connecting or sending, so that a call of backend.open() is part of that.
        self.is_busy = False
        self._stop = stop
        #: Messages that the connection has carried, delivered or not, except those whose MAIL was refused.
        self._carried = 0
        self._fail_silently, self._timeout = backend.fail_silently, getattr(backend, "timeout", TIMEOUT)
        backend.fail_silently = False
        if self._timeout is None:
            backend.timeout = TIMEOUT
        backend._session = self
        self.begin()

    def begin(self, reopen: Callable[[], Any] | None = None, meta: Meta | None = None) -> None:
        """Reset the state for the next message.

        ``reopen`` returns a fresh copy of the stored message; None: copy it with deepcopy(). ``meta`` is the stored
        Meta, which a hook cannot change; None: send() reads it from the fields.
        """
        self._reopen = reopen
        self.meta = meta
        #: The copy that is sent.
        self._message: Any = None
        #: The server's replies to this message.
        self.transcript = Transcript()
        #: The outcome that send() or fail() decided; None: not decided.
        self.outcome: Outcome | None = None
        #: Whether it was not tried: the mailer is blocked, this session cannot connect, or the drain was told to abort.
        self.not_tried = False
        #: Whether no connection could be made for it.
        self._connection_failed = False

    def close(self) -> None:
        """Close the connection, and make the backend only queue again. May be called again."""
        if self.backend._session is self:
            self._hang_up()
            self.backend.fail_silently = self._fail_silently
            if self._timeout is None:
                self.backend.timeout = None
            self.backend._session = None

    # one message

    def send(self, message: Any, expired: datetime, fields: dict[str, Any]) -> Outcome:
        """Try to deliver a message, and return the outcome. Record it in ``fields``, and log what is given up."""
        if self.meta is None:
            self.meta = Meta.read(fields)
        return self._decide(message, expired, fields, self._try(message))

    def fail(self, message: Any, expired: datetime, fields: dict[str, Any], error: Exception) -> Outcome:
        """Return the outcome of a message whose hook raised ``error``: what send() decided, or else a failure."""
        if self.outcome is not None:
            return self.outcome
        return self._decide(message, expired, fields, self._read_transcript(error))

    def recipients(self) -> list[str]:
        """Return the recipients that are to get the message, as the message spells them."""
        assert self.meta is not None
        if self.meta.remaining is not None:
            return self.meta.remaining
        names = map(plain_text, self._message.recipients() if isinstance(self._message, EmailMessage) else ())
        return with_addresses(list(names), self.transcript.recipients)

    def _decide(self, message: Any, expired: datetime, fields: dict[str, Any], attempt: Attempt) -> Outcome:
        assert self.meta is not None
        is_aborted = self._stop.forced_by is not None and attempt.error is not None and not attempt.accepted
        if attempt.error is None and not attempt.refused:
            self.outcome = SENT
        elif is_aborted or self.state is State.REFUSED:
            self.outcome, self.not_tried = DOQUEUE, True
        else:
            self.outcome = judge(message, self.meta, fields, expired, attempt)
            self.not_tried = self._connection_failed and self.outcome == DOQUEUE
        return self.outcome

    def _try(self, message: Any) -> Attempt:
        try:
            sent = self._send_with_retry(message)
        except interrupts():
            raise
        except Exception as error:  # noqa: BLE001 - any error of rendering or transport; the policy logs it
            return self._read_transcript(error)
        if self.transcript.refused:
            return self._read_transcript(None)
        # None is no failure: other backends than SMTP, and an overridden _send(), may return it.
        return Attempt(error=NOT_SENT if sent == 0 and not self.transcript.accepted else None)

    def _read_transcript(self, error: Exception | None) -> Attempt:
        """Return the attempt that the transcript and the error describe, with recipients as the message spells them."""
        if not self.transcript.accepted and not self.transcript.refused:
            return Attempt(error=error, has_connected=not self._connection_failed)
        recipients, replies = self.recipients(), self.transcript.refused
        accepted = names_of(self.transcript.accepted, recipients)
        refused = [
            Refusal(name, code, reply.decode("utf-8", "replace"))
            for name, (code, reply) in zip(names_of(replies, recipients), replies.values(), strict=True)
        ]
        return Attempt(recipients, accepted, refused, error)

    def _send_with_retry(self, message: Any) -> Any:
        """Send a message; if the connection may be the cause of an error, send it once more over a new one."""
        try:
            return self._send_once(message if self._reopen else _deepcopy(message))
        except OutOfStep:
            self.mailer.pipelining = False
            if self.transcript.accepted:
                raise
        except SMTPSenderRefused as error:
            if error.smtp_code not in _CONNECTION_EXHAUSTED or not self._carried or self.transcript.accepted:
                raise
        self._hang_up()
        return self._send_once(self._reopen() if self._reopen else _deepcopy(message))

    def _send_once(self, message: Any) -> Any:
        """Send a message over a usable connection, and return what the backend's send_messages() returns."""
        self._message, self.transcript = message, Transcript()
        if getattr(message, "attachments", None) and getattr(type(self.backend), "_send", None) is _SEND:
            message = with_encoded_attachments(message)
        if self.meta is not None and self.meta.remaining is not None:
            message = addressed_to(message, self.meta.remaining)
        if SMTPBackend.send_messages is _SEND_MESSAGES:
            self.connect()
        self._carried += 1
        sent: Any = None
        self.is_busy, in_delivery.message = True, message
        try:
            sent = self.backend._send_now(message)
        except SMTPSenderRefused:
            self._carried -= 1
            raise
        finally:
            self.is_busy, in_delivery.message = False, None
            connection = getattr(self.backend, "connection", None)
            if connection.in_transaction if isinstance(connection, DeliveryMixin) else not sent:
                self._drop()
        return sent

    # the connection

    def connect(self) -> None:
        """Ensure a usable connection. Raises the error of open(), now or when the mailer was blocked."""
        connection = getattr(self.backend, "connection", None)
        if self.state is State.OPEN:
            self._retire_connection(connection)
        if self.state is not State.OPEN:
            connection = self._open()
        if isinstance(connection, DeliveryMixin):
            connection.transcript, connection.may_pipeline = self.transcript, self.mailer.pipelining

    def _retire_connection(self, connection: Any) -> None:
        """Close a connection that is broken, or that has carried MESSAGES_PER_CONNECTION."""
        if isinstance(connection, DeliveryMixin):
            usable = connection.usable()
        else:
            usable = not isinstance(self.backend, SMTPBackend) or bool(getattr(connection, "sock", True))
        if not usable:
            self._drop()
        elif self._carried >= MESSAGES_PER_CONNECTION:
            self._hang_up()

    def _open(self) -> Any:
        """Open the backend, and return its connection. A failure blocks the mailer, unless others are connected."""
        if self.mailer.blocked is not None:
            self._connection_failed = True
            raise self.mailer.blocked.with_traceback(None)
        if self.deadline.fired:
            raise SMTPServerDisconnected("The time for this message is over")
        self.is_busy = True
        try:
            self.backend.open()
            connection = getattr(self.backend, "connection", None)
            if isinstance(connection, DeliveryMixin):
                # Do it now: a refused EHLO blocks the mailer, and is not a refusal of the message.
                connection.ehlo_or_helo_if_needed()
            self.state, self.has_connected, self._carried = State.OPEN, True, 0
            self.mailer.connected.add(self)
        except interrupts():
            raise
        except Exception as error:
            if self.deadline.fired and self.has_connected:
                raise  # the message used up its time; the server may be fine
            self._connection_failed = True
            if self.mailer.note_failed_connection(self, error):
                self.state = State.REFUSED
            raise
        finally:
            self.is_busy = False
            if self.state is not State.OPEN:
                # The connection may lack TLS or the login.
                self._drop()
        return connection

    def _hang_up(self) -> None:
        """Close the connection; ignore errors."""
        self._mark_closed()
        try:
            self.backend.close()
        except interrupts():
            raise
        except Exception:  # a site's backend may raise anything
            logger.debug("Closing the connection failed.", exc_info=True)

    def _drop(self) -> None:
        """Close the connection without QUIT, even if it is only partly open."""
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


def _deepcopy(message: Any) -> Any:
    """Return a copy of a message, so that rendering does not change the original."""
    try:
        return copy.deepcopy(message)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a hook may attach anything to it
        return copy.copy(message)
