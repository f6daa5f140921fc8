"""A worker: open a message, deliver it through its mailer, and decide its disposition.

An error in one message never stops the worker: it is logged, and the message is requeued, discarded or buried.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from time import monotonic
from typing import Any

from ..discards import lines_written
from ..envelope import Envelope, loads
from ..envelope.signature import keys
from ..errors import UnknownClass, Unreadable, interrupts
from ..logs import get_logger
from ..settings import conf
from .deadlines import DOT_SECONDS
from .describing import describe, describe_buried
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
)
from .report import Outcome
from .requeueing import after_interrupt, reopen, requeue
from .session import Session
from .settling import Delivery

logger = get_logger("delivery")

#: Reservations of a message without a settlement, after which it is assumed to crash the drain.
MAX_DELIVERIES = 3


class Worker:
    """Delivers messages, through one session for each mailer. Not thread-safe.

    ``main`` is the mailer whose queue is drained. A message that fails is given up if it was created before
    ``expired``. ``leases`` says whether the queue has leases, ``wants_events`` whether anybody listens to events.
    """

    def __init__(
        self,
        main: Mailer,
        mailers: Mapping[str | None, Mailer],
        open_session: Callable[[Mailer], Session],
        expired: datetime,
        leases: bool,
        wants_events: bool,
    ) -> None:
        self._main = main
        self._mailers = mailers
        self._open_session = open_session
        self._expired = expired
        self._leases = leases
        self._keys = keys()
        self._wants_events = wants_events
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
                # Reset the session, so that after_interrupt() does not use that of the previous message.
                self.delivery, self._session = delivery, None
                delivery.is_started = True
                disposition: Disposition | None = None
                try:
                    # A local copy as well: the feed resets the attribute when it offers the delivery to another worker.
                    disposition = delivery.disposition = self._deliver(delivery)
                finally:
                    if disposition is None:
                        delivery.disposition = after_interrupt(self._session, delivery.reservation.payload)
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
        disposition = self._try(delivery)
        if self._wants_events and disposition.what == "buried":
            delivery.event = describe_buried(self._main, delivery, disposition)
        return disposition

    def _try(self, delivery: Delivery) -> Disposition:
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
        message, began = envelope.email, monotonic()
        if session is None:
            outcome = self._requeue_unroutable(envelope, fields)
        else:
            outcome = self._call_hook(session, envelope, fields, reservation.payload)
        seconds = monotonic() - began
        disposition = self._dispose(session, envelope, fields, outcome, reservation.payload)
        if self._wants_events and disposition not in (NOT_TRIED, RETURNED):
            delivery.event = describe(session, self._main, message, envelope, outcome, seconds)
        return disposition

    def _dispose(
        self,
        session: Session | None,
        envelope: Envelope,
        fields: dict[str, Any],
        outcome: Outcome,
        payload: bytes,
    ) -> Disposition:
        if outcome.sent:
            return DELIVERED
        self.undelivered += 1
        self.oldest = min(self.oldest, envelope.meta.epoch(envelope.created))
        if not outcome.requeue:
            return DISCARDED
        if session is not None and session.not_tried:
            return RETURNED if session.link.state is State.REFUSED else NOT_TRIED
        return requeue(session, self._main, envelope, fields, payload)

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
        session.begin(None if session.mailer.has_own_hook else partial(reopen, payload), envelope.meta)
        self._session = session
        assert self.delivery is not None
        session.deadline.on_dot = partial(self.on_dot, self.delivery)
        session.deadline.start(self._seconds)
        lines = lines_written()
        try:
            outcome = Outcome(*session.backend._send_queued_messages(envelope.email, self._expired, fields))
            was_sent = session.outcome is not None and session.outcome.sent
            if outcome.sent:
                session.outcome = outcome  # for after_interrupt()
            is_given_up = not outcome.sent and not outcome.requeue and not was_sent
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
        attempt = Attempt(error=why_unroutable(envelope.meta.using))
        judgement = judge(envelope.email, envelope.meta, fields, self._expired, attempt)
        self._main.report(envelope.meta.id, lines_of(envelope.email, envelope.meta, attempt, judgement))
        return judgement.outcome


def why_unroutable(alias: str | None) -> str:
    """Return why no mailer delivers a message that names this one."""
    if alias is None:
        return "it does not say by which mailer it was sent, and 'default' does not queue here"
    return f"{alias!r}, by which it was sent, is not a mailer that queues its mail"


def mark_at_dot(delivery: Delivery) -> float:
    """Mark a message so that the feed's thread renews its lease until the server replies."""
    delivery.is_at_dot = True
    return DOT_SECONDS
