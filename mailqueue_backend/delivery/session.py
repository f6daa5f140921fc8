"""One worker's deliveries through one mailer: one message at a time, reusing the connection while it is usable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from datetime import datetime
from email.utils import parseaddr
from smtplib import SMTPRecipientsRefused
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..envelope import Meta
from ..errors import interrupts
from ..transport.connection import Transcript
from ..transport.rendering import with_encoded_attachments
from .addressing import addressed_to, names_of, plain_text, with_addresses
from .answers import Answer
from .deadlines import Deadline
from .limits import StopRequest
from .link import Link, State
from .mailer import Mailer, Refused
from .policy import Attempt, Refusal, judge, lines_of
from .report import DOQUEUE, SENT, Outcome
from .retries import Retries
from .verdict import Reply, Verdict
from .words import in_words

#: Seconds to connect if no timeout is configured. For backends other than ours, also the timeout of the socket.
TIMEOUT = 60
#: The error of a message if the backend returns 0.
NOT_SENT = "nobody to send it to, or not sent"

#: The error of recipients to which an override did not send the message after another recipient was refused.
NOT_ASKED = "not sent yet, since another recipient was refused"

#: Django's method. Attachments are encoded in advance only if the backend uses it, since an override may read them.
_SEND = vars(SMTPBackend)["_send"]


class Session:
    """Delivers messages through a backend, reusing one connection while it is usable. Not thread-safe.

    While the session exists, ``backend.open()`` connects and the backend raises errors; otherwise it only queues.
    """

    def __init__(self, mailer: Mailer, backend: Any, deadline: Deadline, stop: StopRequest) -> None:
        self.mailer = mailer
        self.backend = backend
        self.deadline = deadline
        self.link = Link(mailer, backend, deadline)
        self._stop = stop
        self._fail_silently, self._timeout = backend.fail_silently, getattr(backend, "timeout", TIMEOUT)
        backend.fail_silently = False
        #: Whether no timeout is configured, so that the timeouts of RFC 5321 apply to each step.
        self.waits_as_rfc = self._timeout is None
        if self.waits_as_rfc:
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
        #: The address in from_email, which stands for the envelope sender.
        self._sender = ""
        #: The copy of the message that is sent.
        self._message: Any = None
        #: The server's replies to this message.
        self.transcript = Transcript()
        #: The outcome that send() or fail() decided; None: not decided.
        self.outcome: Outcome | None = None
        #: The attempt that led to it; None: send() and fail() were not called.
        self.attempt: Attempt | None = None
        #: Number of recipients that were given up.
        self.given_up = 0
        #: Whether the message was not tried: the mailer is blocked, the sender is paused, this session cannot connect,
        #: or the drain was aborted.
        self.not_tried = False
        self.link.has_failed = False

    def close(self) -> None:
        """Close the connection, and make the backend only queue again. May be called again."""
        if self.backend._session is self:
            self.link.hang_up()
            self.backend.fail_silently = self._fail_silently
            if self.waits_as_rfc:
                self.backend.timeout = None
            self.backend._session = None

    def send(self, message: Any, expired: datetime, fields: dict[str, Any]) -> Outcome:
        """Try to deliver a message, and return the outcome. Record it in ``fields``, and log what is given up."""
        if self.meta is None:
            self.meta = Meta.read(fields)
        self._sender = parseaddr(str(getattr(message, "from_email", "")))[1]
        reason = self.mailer.reason_to_wait(self._sender)
        attempt = self._attempt(message) if reason is None else Attempt(error=reason, reached=False)
        return self._decide(message, expired, fields, attempt)

    def fail(self, message: Any, expired: datetime, fields: dict[str, Any], error: Exception) -> Outcome:
        """Return the outcome of a message whose hook raised ``error``: what send() decided, or else a failure."""
        if self.outcome is not None:
            return self.outcome
        attempt = self._attempt_after(error)
        attempt.error = attempt.error and in_words(attempt.error)  # its traceback is logged already
        return self._decide(message, expired, fields, attempt)

    def recipients(self) -> list[str]:
        """Return the remaining recipients, spelled as in the message."""
        assert self.meta is not None
        if self.meta.remaining is not None:
            return with_addresses(self.meta.remaining, ())
        names = map(plain_text, self._message.recipients() if isinstance(self._message, EmailMessage) else ())
        return with_addresses(list(names), self.transcript.recipients)

    def _decide(self, message: Any, expired: datetime, fields: dict[str, Any], attempt: Attempt) -> Outcome:
        assert self.meta is not None
        self.attempt = attempt
        is_aborted = self._stop.forced_by is not None and attempt.error is not None
        if attempt.is_delivered:
            self.mailer.note_accepted(self._sender)
            self.outcome = SENT
        elif (is_aborted or self.link.state is State.REFUSED) and not attempt.accepted:
            self.outcome, self.not_tried = DOQUEUE, True
        else:
            judgement = judge(message, self.meta, fields, expired, attempt)
            self.outcome, self.given_up = judgement.outcome, judgement.given_up
            self.not_tried = not attempt.reached and self.outcome == DOQUEUE
            if attempt.reached:
                self._notify_mailer(attempt, lines_of(message, self.meta, attempt, judgement))
        return self.outcome

    def _notify_mailer(self, attempt: Attempt, lines: list[str]) -> None:
        """Notify the mailer of a message that was refused for at least one recipient."""
        assert self.meta is not None
        if attempt.accepted:
            self.mailer.note_accepted(self._sender)
        if attempt.accepted or attempt.doubt is None:
            self.mailer.report(self.meta.id, lines, attempt.error)
        else:
            self.mailer.note_refused(self._refused(attempt.doubt, lines, attempt.error))

    def _refused(self, doubt: Reply, lines: Sequence[str] = (), error: object = None) -> Refused:
        assert self.meta is not None
        domains = {address.rpartition("@")[2].lower() for address in self.transcript.recipients}
        return Refused(self._sender, doubt, self.meta.id, domains, lines, error)

    def _attempt(self, message: Any) -> Attempt:
        """Send a message, in further transactions for as long as ``Retries`` prepares them."""
        self.transcript = Transcript()
        retries: Retries | None = None
        while True:
            sent, error = None, None
            try:
                sent = self._transact(message, retries)
            except interrupts():
                raise
            except Exception as caught:  # noqa: BLE001 - rendering and transport are not ours; the policy judges it
                error = caught
            if error is None and retries is None and not self.transcript.refused:
                return self._accepted(sent)
            retries = retries or Retries(self.mailer, self.link, self.transcript)
            is_over = self._stop.forced_by is not None or self.deadline.fired
            if is_over or not retries.prepare_next(Answer(self.transcript, error)):
                return self._attempt_after(error, is_unsent=sent == 0)

    def _accepted(self, sent: Any) -> Attempt:
        """Return the attempt after a first transaction without refusals or errors."""
        self.mailer.pipelining_is_proven |= self.link.was_pipelined
        # Backends other than SMTP, and an overridden _send(), may return None.
        return Attempt(error=NOT_SENT if sent == 0 and not self.transcript.accepted else None)

    def _attempt_after(self, error: Exception | None, is_unsent: bool = False) -> Attempt:
        """Return the attempt for the transcript and ``error``, with recipients spelled as in the message."""
        answer = Answer(self.transcript, error)
        if not self.transcript.accepted:
            if self.link.has_failed:
                return Attempt(error=error, reached=False)
            blocking = next((reply for reply in answer.replies() if reply.verdict is Verdict.BLOCKED), None)
            if blocking is not None:
                self.mailer.blocked = blocking
                return Attempt(error=blocking, reached=False)
            if answer.doubt is not None and not self.mailer.counts_as_tried(self._refused(answer.doubt)):
                return Attempt(error=answer.doubt, reached=False)
        if not self.transcript.accepted and not answer.refused:
            return Attempt(error=error or (NOT_SENT if is_unsent else None), reply=answer.reply, doubt=answer.doubt)
        recipients = self.recipients()
        names = names_of(answer.refused, recipients)
        refusals = [Refusal(name, reply) for name, reply in zip(names, answer.refused.values(), strict=True)]
        accepted = names_of(self.transcript.accepted, recipients)
        others: object = error
        unanswered = set(recipients) - set(accepted) - set(names)
        if isinstance(error, SMTPRecipientsRefused):
            # The error covers the refused recipients only: an override may send to each recipient separately.
            others = str(answer.reply or NOT_ASKED) if unanswered else None
        elif error is None and is_unsent and unanswered:
            others = NOT_SENT
        return Attempt(recipients, accepted, refusals, others, answer.reply, answer.doubt)

    def _transact(self, message: Any, retries: Retries | None) -> Any:
        """Send a fresh copy of a message to its remaining recipients."""
        if self._reopen is None:
            message = _deepcopy(message)
        elif retries is not None:
            message = self._reopen()
        self._message = message
        if getattr(message, "attachments", None) and getattr(type(self.backend), "_send", None) is _SEND:
            message = with_encoded_attachments(message)
        if self.meta is not None and self.meta.remaining is not None:
            message = addressed_to(message, self.meta.remaining)
        may_pipeline = self.mailer.pipelining if retries is None else retries.may_pipeline
        return self.link.transact(message, self.transcript, may_pipeline)


def _deepcopy(message: Any) -> Any:
    """Copy a message so that rendering does not modify the original."""
    try:
        return copy.deepcopy(message)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a hook may set attributes that cannot be copied
        return copy.copy(message)
