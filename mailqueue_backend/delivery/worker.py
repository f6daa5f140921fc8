"""A worker: open a message, deliver it through its mailer, and decide its disposition.

An error in one message never stops the worker: it is logged, and the message is requeued, discarded or buried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..discards import lines_written
from ..envelope import Envelope, Meta, dumps, loads
from ..envelope.signature import keys
from ..errors import UnknownClass, Unreadable, interrupts
from ..logs import get_logger
from ..settings import conf
from .addressing import names_of
from .deadlines import DOT_SECONDS
from .link import State
from .mailer import Mailer
from .policy import (
    DELIVERED,
    DISCARDED,
    NOT_TRIED,
    RETURNED,
    Attempt,
    Disposition,
    bury,
    judge,
    leave,
    lines_of,
    log_given_up_by_hook,
    retry,
    retry_delay,
)
from .report import Outcome
from .session import Session
from .settling import Delivery

logger = get_logger("delivery")

#: Reservations of a message without a settlement, after which it is assumed to crash the drain.
MAX_DELIVERIES = 3


class Worker:
    """Delivers messages, through one session for each mailer. Not thread-safe.

    ``main`` is the mailer whose queue is drained. A message that fails is given up if it was created before
    ``expired``. ``leases`` says whether the queue has leases.
    """

    def __init__(
        self,
        main: Mailer,
        mailers: Mapping[str | None, Mailer],
        open_session: Callable[[Mailer], Session],
        expired: datetime,
        leases: bool,
    ) -> None:
        self._main = main
        self._mailers = mailers
        self._open_session = open_session
        self._expired = expired
        self._leases = leases
        self._keys = keys()
        #: Seconds that the delivery of one message may take.
        self._seconds = conf.MAIL_QUEUE_LEASE / 2
        self._sessions: dict[Mailer, Session] = {}
        #: Called before the final dot of a message is sent; returns the seconds that the server has to reply.
        self.on_dot = mark_at_dot
        #: Number of recipients given up while the message was accepted for others, or still may be.
        self.recipients_given_up = 0
        #: Number of messages opened but not delivered, and when the oldest was created, in seconds since the epoch.
        self.undelivered, self.oldest = 0, math.inf
        #: The current delivery, or the last one.
        self.delivery: Delivery | None = None
        #: The session of the current message; None: not chosen yet.
        self._session: Session | None = None

    def run(self, deliveries: Iterable[Delivery], report_done: Callable[[Delivery], object]) -> None:
        """Deliver the messages, and call ``report_done`` after each. Stop if only this worker cannot connect."""
        try:
            for delivery in deliveries:
                # Reset the session, so that _after_interrupt() does not use that of the previous message.
                self.delivery, self._session = delivery, None
                delivery.is_started = True
                disposition: Disposition | None = None
                try:
                    # A local copy as well: the feed resets the attribute when it offers the delivery to another worker.
                    disposition = delivery.disposition = self._deliver(delivery)
                finally:
                    if disposition is None:
                        delivery.disposition = self._after_interrupt(delivery.reservation.payload)
                report_done(delivery)
                if disposition is RETURNED:
                    break
        finally:
            self.close()

    def close(self) -> None:
        """Close the sessions. May be called again."""
        for session in self._sessions.values():
            session.close()

    @property
    def has_connected(self) -> bool:
        """Whether any of the sessions has ever connected."""
        return any(session.link.has_connected for session in list(self._sessions.values()))

    def _deliver(self, delivery: Delivery) -> Disposition:
        reservation = delivery.reservation
        try:
            if reservation.deliveries - delivery.survived > MAX_DELIVERIES:
                raise Unreadable(f"it was reserved by {MAX_DELIVERIES} processes that died")
            envelope = loads(reservation.payload, self._keys)
        except UnknownClass as error:
            return leave(error) if self._leases else bury(error)
        except Unreadable as error:
            return bury(error)
        delivery.id = envelope.meta.id
        fields = {"created": envelope.created, **envelope.extra}
        if not envelope.meta.stored:
            envelope.meta.write(fields)
        session = self._find_session(envelope.meta.using)
        if session is None:
            outcome = self._requeue_unroutable(envelope, fields)
        else:
            outcome = self._call_hook(session, envelope, fields, reservation.payload)
        if outcome.sent:
            return DELIVERED
        self.undelivered += 1
        self.oldest = min(self.oldest, envelope.meta.epoch(envelope.created))
        if not outcome.requeue:
            return DISCARDED
        if session is not None and session.not_tried:
            return RETURNED if session.link.state is State.REFUSED else NOT_TRIED
        return self._retry(session, envelope, fields, reservation.payload)

    def _find_session(self, alias: str | None) -> Session | None:
        """Return the session for an alias, opened at first use; None if there is no such mailer."""
        mailer = self._mailers.get(alias)
        if mailer is None:
            return None
        session = self._sessions.get(mailer)
        if session is None:
            session = self._sessions[mailer] = self._open_session(mailer)
        return session

    def _call_hook(self, session: Session, envelope: Envelope, fields: dict[str, Any], payload: bytes) -> Outcome:
        """Deliver through the hook. An error that it raises fails the message, unless the session has an outcome."""
        session.begin(None if session.mailer.has_own_hook else partial(_reopen, payload), envelope.meta)
        self._session = session
        assert self.delivery is not None
        session.deadline.on_dot = partial(self.on_dot, self.delivery)
        session.deadline.start(self._seconds)
        lines = lines_written()
        try:
            outcome = Outcome(*session.backend._send_queued_messages(envelope.email, self._expired, fields))
            is_given_up = not outcome.sent and not outcome.requeue
            if is_given_up and session.mailer.has_own_hook and lines_written() == lines:
                return log_given_up_by_hook(envelope.email, envelope.meta, fields, type(session.backend).__qualname__)
            return outcome
        except interrupts():
            raise
        except Exception as error:  # a site's hook may raise anything
            logger.exception("Message %s: the hook _send_queued_messages() failed.", envelope.meta.id)
            return session.fail(envelope.email, self._expired, fields, error)
        finally:
            session.deadline.clear()
            self.recipients_given_up += session.given_up

    def _requeue_unroutable(self, envelope: Envelope, fields: dict[str, Any]) -> Outcome:
        """Requeue a message whose mailer does not exist, or give it up once it has expired."""
        alias = envelope.meta.using
        error = f"{alias!r}, by which it was sent, is not a mailer that queues its mail"
        if alias is None:
            error = "it does not say by which mailer it was sent, and 'default' does not queue here"
        attempt = Attempt(error=error)
        judgement = judge(envelope.email, envelope.meta, fields, self._expired, attempt)
        self._main.report(envelope.meta.id, lines_of(envelope.email, envelope.meta, attempt, judgement))
        return judgement.outcome

    def _retry(
        self, session: Session | None, envelope: Envelope, fields: dict[str, Any], payload: bytes
    ) -> Disposition:
        """Requeue a failed message as it was stored, or as a site's hook left it, with updated Meta."""
        meta = envelope.meta
        try:
            fields.setdefault("created", envelope.created)
            meta.write(fields)
            mailer = self._main if session is None else session.mailer
            email = envelope.email if session is not None and mailer.has_own_hook else _reopen(payload)
            envelope.email = None  # free the memory: the payload holds the message, too
            return retry(mailer.backend._wrap(email, **fields), retry_delay(meta, fields["created"]))
        except interrupts():
            raise
        except Exception:  # a site's hook may put anything into the fields
            logger.exception("Message %s cannot be stored as the hook left it; it is requeued unchanged.", meta.id)
            return _retry_as_stored(payload, meta)

    def _after_interrupt(self, payload: bytes) -> Disposition | None:
        """Return the disposition of an interrupted message; None if it is to be put back as it was."""
        session = self._session
        if session is None:
            return None
        outcome = session.outcome
        if outcome is not None and not outcome.requeue:
            return DELIVERED if outcome.sent else DISCARDED
        if not session.transcript.accepted:
            if outcome is None or session.meta is None or session.meta.remaining is None:
                return None
            return _retry_as_stored(payload, session.meta)
        recipients = session.recipients()
        accepted = names_of(session.transcript.accepted, recipients)
        remaining = [recipient for recipient in recipients if recipient not in accepted]
        if not remaining:
            return DELIVERED
        meta = loads(payload, self._keys).meta
        meta.remaining = remaining
        return _retry_as_stored(payload, meta)


def mark_at_dot(delivery: Delivery) -> float:
    """Mark a message so that the feed's thread renews its lease until the server replies."""
    delivery.is_at_dot = True
    return DOT_SECONDS


def _reopen(payload: bytes) -> Any:
    return loads(payload).email


def _retry_as_stored(payload: bytes, meta: Meta) -> Disposition:
    """Requeue the stored message with this Meta, or the stored bytes if it cannot be pickled again.

    Bury those bytes if some recipients already have the message, since a retry would send it to them again.
    """
    try:
        envelope = loads(payload)
        meta.write(envelope.extra)
        return retry(dumps(envelope), 0)
    except interrupts():
        raise
    except Exception:  # an unpickled attribute of a message may not be picklable
        if meta.remaining is not None:
            logger.exception("Message %s cannot be stored again.", meta.id)
            return bury(f"it cannot be stored again, and only these are still to get it: {', '.join(meta.remaining)}")
        return retry(None, 0)
