"""A worker: open a message, have it delivered by its mailer, and say what becomes of it.

Whatever goes wrong with one message is that message's failure: it is logged, the message goes back, and the worker
goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from functools import partial
from typing import Any

from ..envelope import Envelope, Meta, dumps, loads
from ..envelope.signature import keys
from ..errors import UnknownClass, Unreadable, interrupts
from ..logs import get_logger
from ..settings import conf
from .addressing import names_of
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
    retry,
    retry_delay,
)
from .report import Outcome
from .session import Session, State
from .settling import Delivery

logger = get_logger("delivery")

#: Unsettled deliveries after which a message is assumed to crash the drain.
HANDOUTS = 3


class Worker:
    """Delivers messages, with a session of its own for each mailer. For one thread.

    ``main``: the mailer whose queue is drained. ``expired``: a failed message that was created before is given up.
    ``leases``: the queue's ability.
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
        #: Seconds that a message has.
        self._seconds = conf.MAIL_QUEUE_LEASE / 2
        self._sessions: dict[Mailer, Session] = {}
        #: The current delivery, or the last one.
        self.delivery: Delivery | None = None
        #: The session of the message that is being delivered; None: it has none.
        self._session: Session | None = None

    def run(self, deliveries: Iterable[Delivery], done: Callable[[Delivery], object]) -> None:
        """Deliver one message after the other; stop early if this worker cannot connect while others can."""
        try:
            for delivery in deliveries:
                # An interrupt must not take this one for the last.
                self.delivery, self._session = delivery, None
                delivery.begun = True
                disposition: Disposition | None = None
                try:
                    # Kept here too: once it is set, the feed may offer the delivery to another worker.
                    disposition = delivery.disposition = self._deliver(delivery)
                finally:
                    if disposition is None:
                        delivery.disposition = self._after_interrupt(delivery.reservation.payload)
                leaves = disposition is RETURNED
                done(delivery)
                if leaves:
                    break
        finally:
            self.close()

    def close(self) -> None:
        """Close the sessions. May be called again."""
        for session in self._sessions.values():
            session.close()

    @property
    def has_connected(self) -> bool:
        """A server has answered."""
        return any(session.has_connected for session in list(self._sessions.values()))

    def _deliver(self, delivery: Delivery) -> Disposition:
        reservation = delivery.reservation
        try:
            if reservation.deliveries > HANDOUTS:
                raise Unreadable(f"it was reserved by {HANDOUTS} processes that died")
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
            outcome = self._ask_hook(session, envelope, fields, reservation.payload)
        if outcome.sent:
            return DELIVERED
        if not outcome.requeue:
            return DISCARDED
        if session is not None and session.not_tried:
            return RETURNED if session.state is State.REFUSED else NOT_TRIED
        return self._retry(session, envelope, fields, reservation.payload)

    def _find_session(self, alias: str | None) -> Session | None:
        """Return the session of the mailer by which a message was sent; None when there is no such mailer."""
        mailer = self._mailers.get(alias)
        if mailer is None:
            return None
        session = self._sessions.get(mailer)
        if session is None:
            session = self._sessions[mailer] = self._open_session(mailer)
        return session

    def _ask_hook(self, session: Session, envelope: Envelope, fields: dict[str, Any], payload: bytes) -> Outcome:
        """Deliver by the hook; an error of its own is a failure like any other, unless it comes after the delivery."""
        session.begin(None if session.mailer.has_own_hook else partial(_reopen, payload), envelope.meta)
        self._session = session
        session.deadline.start(self._seconds)
        try:
            return Outcome(*session.backend._send_queued_messages(envelope.email, self._expired, fields))
        except interrupts():
            raise
        except Exception as error:  # a site's hook may raise anything
            logger.exception("Message %s: the hook _send_queued_messages() failed.", envelope.meta.id)
            return session.fail(envelope.email, self._expired, fields, error)
        finally:
            session.deadline.clear()

    def _requeue_unroutable(self, envelope: Envelope, fields: dict[str, Any]) -> Outcome:
        """Keep a message whose mailer is not there; no other is to send it by guess."""
        alias = envelope.meta.using
        error = f"{alias!r}, by which it was sent, is not a mailer that queues its mail"
        if alias is None:
            error = "it does not say by which mailer it was sent, and 'default' does not queue here"
        return judge(envelope.email, envelope.meta, fields, self._expired, Attempt(error=error))

    def _retry(
        self, session: Session | None, envelope: Envelope, fields: dict[str, Any], payload: bytes
    ) -> Disposition:
        """Serialise a failed message as it was stored, or as a site's hook left it, with what we note of the try."""
        meta = envelope.meta
        try:
            fields.setdefault("created", envelope.created)
            meta.write(fields)
            mailer = self._main if session is None else session.mailer
            email = envelope.email if session is not None and mailer.has_own_hook else _reopen(payload)
            envelope.email = None  # a big one is there in bytes already
            return retry(mailer.backend._wrap(email, **fields), retry_delay(meta, fields["created"]))
        except interrupts():
            raise
        except Exception:  # a site's hook may put anything into the fields
            logger.exception("Message %s cannot be stored as the hook left it; it is requeued as it was.", meta.id)
            return _retry_as_stored(payload, meta)

    def _after_interrupt(self, payload: bytes) -> Disposition | None:
        """Say what becomes of a message whose delivery was interrupted; None: the server does not have it."""
        session = self._session
        if session is None or not session.transcript.accepted:
            return None
        recipients = session.recipients()
        accepted = names_of(session.transcript.accepted, recipients)
        remaining = [recipient for recipient in recipients if recipient not in accepted]
        if not remaining:
            return DELIVERED
        meta = loads(payload, self._keys).meta
        meta.remaining = remaining
        return _retry_as_stored(payload, meta)


def _reopen(payload: bytes) -> Any:
    return loads(payload).email


def _retry_as_stored(payload: bytes, meta: Meta) -> Disposition:
    """Requeue the stored message; bury one that cannot be pickled again and must not go to all its recipients."""
    try:
        return retry(_with_meta(payload, meta), 0)
    except interrupts():
        raise
    except Exception:  # what hangs on a message may unpickle to what cannot be pickled
        if meta.remaining is not None:
            logger.exception("Message %s cannot be stored again.", meta.id)
            return bury(f"it cannot be stored again, and only these are still to get it: {', '.join(meta.remaining)}")
        return retry(None, 0)


def _with_meta(payload: bytes, meta: Meta) -> bytes:
    """Return a stored payload with another record of ours in it, and nothing else changed."""
    envelope = loads(payload)
    meta.write(envelope.extra)
    return dumps(envelope)
