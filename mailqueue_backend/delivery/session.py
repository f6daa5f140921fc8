"""One worker's connection to one mailer, over which message after message goes."""

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

#: Messages that one connection carries at most; servers often allow so many, and no more.
MESSAGES_PER_CONNECTION = 100
#: Seconds that one step of a delivery may block where no timeout is configured.
TIMEOUT = 60
#: Replies to MAIL by which a server says that a connection has carried enough.
_ENOUGH = (421, 452)
#: Why a message is tried again where the class behind says that it has sent none.
NOT_SENT = "nobody to send it to, or not sent"

#: Django's own. A test that patches it, and sends nothing, needs no server.
_SEND_MESSAGES = SMTPBackend.send_messages
#: Django's own, behind which nobody looks at what it renders.
_SEND = vars(SMTPBackend)["_send"]

#: ``message``: what this thread is delivering; it shall not be queued again by that.
in_delivery = local()


class State(Enum):
    """What a session has."""

    CLOSED = "no connection"
    OPEN = "a connection, which may carry the next message"
    REFUSED = "could not connect while other sessions are connected; do not retry"


class Session:
    """Delivers messages by a backend, over one connection as long as it lasts. For one thread.

    While there is a session, ``backend.open()`` connects, and errors are raised; otherwise the backend only queues.
    """

    def __init__(self, mailer: Mailer, backend: Any, deadline: Deadline, stop: StopRequest) -> None:
        self.mailer = mailer
        self.backend = backend
        self.deadline = deadline
        self.state = State.CLOSED
        #: There was a connection: the server answers.
        self.has_connected = False
        #: It is connecting or sending, so that the backend's open() is its own call, or Django's in it.
        self.busy = False
        self._stop = stop
        #: Messages that the connection has carried, delivered or not; not those whose MAIL was refused.
        self._carried = 0
        self._silent, self._timeout = backend.fail_silently, getattr(backend, "timeout", TIMEOUT)
        backend.fail_silently = False
        if self._timeout is None:
            backend.timeout = TIMEOUT
        backend._session = self
        self.begin()

    def begin(self, reopen: Callable[[], Any] | None = None, meta: Meta | None = None) -> None:
        """Begin a message.

        ``reopen`` makes another copy of it as it is stored; None: by deepcopy(). ``meta`` is what we have stored with
        it, whatever a hook does to the fields; None: what the fields say.
        """
        self._reopen = reopen
        self.meta = meta
        #: The copy that is sent.
        self._message: Any = None
        #: What the server has said of this message.
        self.transcript = Transcript()
        #: What send() has said of it; None: it was not called.
        self.outcome: Outcome | None = None
        #: It was not tried: the mailer is blocked, this session is over, or the drain lets go.
        self.not_tried = False
        #: No connection could be made for it.
        self._unreached = False

    def close(self) -> None:
        """Hang up, and let the backend only queue again. May be called again."""
        if self.backend._session is self:
            self._hang_up()
            self.backend.fail_silently = self._silent
            if self._timeout is None:
                self.backend.timeout = None
            self.backend._session = None

    # one message

    def send(self, message: Any, expired: datetime, fields: dict[str, Any]) -> Outcome:
        """Try a message, and say what becomes of it. Notes it in ``fields``, and logs what is given up."""
        if self.meta is None:
            self.meta = Meta.read(fields)
        return self._decide(message, expired, fields, self._attempt(message))

    def fail(self, message: Any, expired: datetime, fields: dict[str, Any], error: Exception) -> Outcome:
        """Say what becomes of a message whose hook has raised this, before or after it had called send()."""
        if self.outcome is not None:
            return self.outcome
        return self._decide(message, expired, fields, self._attempt_after(error))

    def recipients(self) -> list[str]:
        """Return who is to get the message, by the names that the message has for them."""
        assert self.meta is not None
        if self.meta.remaining is not None:
            return self.meta.remaining
        names = map(plain_text, self._message.recipients() if isinstance(self._message, EmailMessage) else ())
        return with_addresses(list(names), self.transcript.recipients)

    def _decide(self, message: Any, expired: datetime, fields: dict[str, Any], attempt: Attempt) -> Outcome:
        assert self.meta is not None
        lets_go = self._stop.forced_by is not None and attempt.error is not None and not attempt.accepted
        if attempt.error is None and not attempt.refused:
            self.outcome = SENT
        elif lets_go or self.state is State.REFUSED:
            self.outcome, self.not_tried = DOQUEUE, True
        else:
            self.outcome = judge(message, self.meta, fields, expired, attempt)
            self.not_tried = self._unreached and self.outcome == DOQUEUE
        return self.outcome

    def _attempt(self, message: Any) -> Attempt:
        try:
            sent = self._try_twice(message)
        except interrupts():
            raise
        except Exception as error:  # noqa: BLE001 - rendering and transport are not ours; the policy logs it
            return self._attempt_after(error)
        if self.transcript.refused:
            return self._attempt_after(None)
        # Other backends than SMTP may return None, and an overridden _send() too.
        return Attempt(error=NOT_SENT if sent == 0 and not self.transcript.accepted else None)

    def _attempt_after(self, error: Exception | None) -> Attempt:
        """Return what came of a try, with the recipients' own names."""
        if not self.transcript.accepted and not self.transcript.refused:
            return Attempt(error=error, reached=not self._unreached)
        recipients, replies = self.recipients(), self.transcript.refused
        accepted = names_of(self.transcript.accepted, recipients)
        refused = [
            Refusal(name, code, reply.decode("utf-8", "replace"))
            for name, (code, reply) in zip(names_of(replies, recipients), replies.values(), strict=True)
        ]
        return Attempt(recipients, accepted, refused, error)

    def _try_twice(self, message: Any) -> Any:
        """Try it, and once more over a new connection where the old one may be what the server objects to."""
        try:
            return self._try(message if self._reopen else _deepcopy(message))
        except OutOfStep:
            self.mailer.pipelining = False
            if self.transcript.accepted:
                raise
        except SMTPSenderRefused as error:
            if error.smtp_code not in _ENOUGH or not self._carried or self.transcript.accepted:
                raise
        self._hang_up()
        return self._try(self._reopen() if self._reopen else _deepcopy(message))

    def _try(self, message: Any) -> Any:
        """Send a copy of a message by the class behind, and return how many that says it has sent."""
        self._message, self.transcript = message, Transcript()
        if getattr(message, "attachments", None) and getattr(type(self.backend), "_send", None) is _SEND:
            message = with_encoded_attachments(message)
        if self.meta is not None and self.meta.remaining is not None:
            message = addressed_to(message, self.meta.remaining)
        if SMTPBackend.send_messages is _SEND_MESSAGES:
            self.connect()
        self._carried += 1
        sent: Any = None
        self.busy, in_delivery.message = True, message
        try:
            sent = self.backend._send_now(message)
        except SMTPSenderRefused:
            self._carried -= 1  # not this one
            raise
        finally:
            self.busy, in_delivery.message = False, None
            connection = getattr(self.backend, "connection", None)
            if connection.in_transaction if isinstance(connection, DeliveryMixin) else not sent:
                self._drop()
        return sent

    # the connection

    def connect(self) -> None:
        """Ensure a usable connection. Raises what the backend's open() raises, or has raised before."""
        connection = getattr(self.backend, "connection", None)
        if self.state is State.OPEN:
            self._retire_connection(connection)
        if self.state is not State.OPEN:
            connection = self._open()
        if isinstance(connection, DeliveryMixin):
            connection.transcript, connection.may_pipeline = self.transcript, self.mailer.pipelining

    def _retire_connection(self, connection: Any) -> None:
        """Close a connection that the server or smtplib has closed, or that has carried enough."""
        if isinstance(connection, DeliveryMixin):
            usable = connection.usable()
        else:
            usable = not isinstance(self.backend, SMTPBackend) or bool(getattr(connection, "sock", True))
        if not usable:
            self._drop()
        elif self._carried >= MESSAGES_PER_CONNECTION:
            self._hang_up()

    def _open(self) -> Any:
        """Open the backend, and return its connection; a failure blocks the mailer, so that no session tries again."""
        if self.mailer.blocked is not None:
            self._unreached = True
            raise self.mailer.blocked.with_traceback(None)
        if self.deadline.fired:
            raise SMTPServerDisconnected("The time for this message is over")
        self.busy = True
        try:
            self.backend.open()
            connection = getattr(self.backend, "connection", None)
            if isinstance(connection, DeliveryMixin):
                # A server that refuses the greeting refuses no message.
                connection.ehlo_or_helo_if_needed()
            self.state, self.has_connected, self._carried = State.OPEN, True, 0
            self.mailer.connected.add(self)
        except interrupts():
            raise
        except Exception as error:
            if self.deadline.fired and self.has_connected:
                raise  # the message has used up its time; that says nothing of the server
            self._unreached = True
            if self.mailer.note_failed_connection(self, error):
                self.state = State.REFUSED
            raise
        finally:
            self.busy = False
            if self.state is not State.OPEN:
                # It may lack its TLS or its login.
                self._drop()
        return connection

    def _hang_up(self) -> None:
        """Close the connection; ignore errors."""
        self._forget()
        try:
            self.backend.close()
        except interrupts():
            raise
        except Exception:  # any transport may stand behind
            logger.debug("Closing the connection failed.", exc_info=True)

    def _drop(self) -> None:
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


def _deepcopy(message: Any) -> Any:
    """Copy a message so that whatever renders it leaves no marks on it."""
    try:
        return copy.deepcopy(message)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a hook may hang anything on it
        return copy.copy(message)
