"""One worker's deliveries through one mailer: message after message, over one connection as long as it lasts."""

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

#: Seconds to connect, and socket timeout of backends other than ours, if none is configured.
TIMEOUT = 60
#: The error of a message if the backend returns that it sent none.
NOT_SENT = "nobody to send it to, or not sent"

#: The error of recipients for whom an override has not sent the message, after others were refused.
NOT_ASKED = "not sent yet, since another recipient was refused"

#: Django's method. Attachments are encoded in advance only if the backend uses it, since an override may read them.
_SEND = vars(SMTPBackend)["_send"]


class Session:
    """Delivers messages through a backend, over one connection while it lasts. Not thread-safe.

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
        #: Whether no timeout is configured, so that each step may take as long as RFC 5321 has it.
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
        #: The envelope sender, as far as the message tells.
        self._sender = ""
        #: The copy that is sent.
        self._message: Any = None
        #: The server's replies to this message.
        self.transcript = Transcript()
        #: The outcome that send() or fail() decided; None: not decided.
        self.outcome: Outcome | None = None
        #: Recipients who were given up.
        self.given_up = 0
        #: Whether it was not tried: the mailer or the sender has to wait, this session cannot connect, or the drain was
        #: told to abort.
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
        """Return the recipients that are to get the message, as the message spells them."""
        assert self.meta is not None
        if self.meta.remaining is not None:
            return with_addresses(self.meta.remaining, ())
        names = map(plain_text, self._message.recipients() if isinstance(self._message, EmailMessage) else ())
        return with_addresses(list(names), self.transcript.recipients)

    def _decide(self, message: Any, expired: datetime, fields: dict[str, Any], attempt: Attempt) -> Outcome:
        assert self.meta is not None
        lets_go = self._stop.forced_by is not None and attempt.error is not None
        if attempt.is_delivered:
            self.mailer.note_accepted(self._sender)
            self.outcome = SENT
        elif (lets_go or self.link.state is State.REFUSED) and not attempt.accepted:
            self.outcome, self.not_tried = DOQUEUE, True
        else:
            judgement = judge(message, self.meta, fields, expired, attempt)
            self.outcome, self.given_up = judgement.outcome, judgement.given_up
            self.not_tried = not attempt.reached and self.outcome == DOQUEUE
            if attempt.reached:
                self._note(attempt, lines_of(message, self.meta, attempt, judgement))
        return self.outcome

    def _note(self, attempt: Attempt, lines: list[str]) -> None:
        """Tell the mailer of a message that was refused, or that only some recipients have."""
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
        """Send a message in as many transactions as may help."""
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
            over = self._stop.forced_by is not None or self.deadline.fired
            if over or not retries.goes_on(Answer(self.transcript, error)):
                return self._attempt_after(error)

    def _accepted(self, sent: Any) -> Attempt:
        """Return the attempt whose first transaction met no refusal and no error."""
        self.mailer.pipelining_is_proven |= self.link.was_pipelined
        # Other backends than SMTP may return None, and an overridden _send() too.
        return Attempt(error=NOT_SENT if sent == 0 and not self.transcript.accepted else None)

    def _attempt_after(self, error: Exception | None) -> Attempt:
        """Return the attempt that the transcript and ``error`` describe, recipients spelled as in the message."""
        answer = Answer(self.transcript, error)
        if not self.transcript.accepted:
            if self.link.has_failed:
                return Attempt(error=error, reached=False)
            blocking = next((reply for reply in answer.replies() if reply.verdict is Verdict.BLOCKED), None)
            if blocking is not None:
                self.mailer.blocked = blocking
            if blocking is not None:
                return Attempt(error=blocking, reached=False)
            if answer.doubt is not None and not self.mailer.counts_as_tried(self._refused(answer.doubt)):
                return Attempt(error=answer.doubt, reached=False)
        if not self.transcript.accepted and not answer.refused:
            return Attempt(error=error, reply=answer.reply, doubt=answer.doubt)
        recipients = self.recipients()
        names = names_of(answer.refused, recipients)
        refusals = [Refusal(name, reply) for name, reply in zip(names, answer.refused.values(), strict=True)]
        accepted = names_of(self.transcript.accepted, recipients)
        others: object = error
        if isinstance(error, SMTPRecipientsRefused):
            # It concerns those who were refused; an override may have sent to one after the other.
            is_answered = not set(recipients) - set(accepted) - set(names)
            others = None if is_answered else str(answer.reply or NOT_ASKED)
        return Attempt(recipients, accepted, refusals, others, answer.reply, answer.doubt)

    def _transact(self, message: Any, retries: Retries | None) -> Any:
        """Send a fresh copy of a message to those recipients who are still to get it."""
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
    """Copy a message so that whatever renders it leaves no marks on it."""
    try:
        return copy.deepcopy(message)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a hook may hang anything on it
        return copy.copy(message)
