"""A worker: take a message, let the backend deliver it, settle it with the queue, until nothing is left to take.

Whatever goes wrong with one message is that message's failure: it is logged, the message goes back, and the
worker goes on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, Protocol

from ..envelope import Envelope, loads
from ..errors import UnknownClass, Unreadable
from ..queues.base import MessageQueue, Reservation
from ..settings import conf
from .deadlines import Deadline
from .outcomes import Outcome, Report
from .quota import DrainOptions, Quota
from .retrying import persist, retry_delay

logger = logging.getLogger("mailqueue_backend.delivery")

#: So often a message is handed out without being settled, before it is taken to be what kills the drains.
HANDOUTS = 3


class Backend(Protocol):
    """What a drain needs of a backend; mail.base.QueueingMixin has it."""

    que: MessageQueue
    options: DrainOptions
    #: Other workers have a connection: one that gets none leaves the work to them.
    helping: bool

    @property
    def unreachable(self) -> bool: ...

    @property
    def leaving(self) -> bool: ...

    @property
    def parallel(self) -> bool: ...

    def _delivering(
        self, deadline: Deadline | None = None, connected: Callable[[], None] | None = None
    ) -> AbstractContextManager[None]: ...

    def _helper(self) -> Backend: ...

    def _wrap(self, email: Any, created: datetime | None = None, **kwargs: Any) -> bytes: ...

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]: ...

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome: ...


class Worker:
    """One backend, with its one connection, in one thread of a drain."""

    def __init__(self, backend: Backend, quota: Quota, report: Report, expired: datetime, deadline: Deadline) -> None:
        self.backend = backend
        self.queue = backend.que
        self.quota = quota
        self.report = report
        #: A failed message that was created before is discarded.
        self.expired = expired
        self.deadline = deadline
        self.lease = conf.MAIL_QUEUE_LEASE

    def run(self, connected: Callable[[], None] | None = None) -> None:
        """Work until no message is left for this worker. Raises QueueUnavailable.

        ``connected`` is called when the backend has a connection, or has settled a message without needing one.
        """
        with self.backend._delivering(self.deadline, connected):
            reservation = self._reserve()
            while reservation is not None:
                reservation = self._process(reservation)
                if connected is not None and not self.backend.unreachable:
                    connected()

    def _reserve(self) -> Reservation | None:
        if not self.quota.admit():
            return None
        return persist(lambda: self.queue.reserve(self.lease))

    def _process(self, reservation: Reservation) -> Reservation | None:
        """Deliver and settle one message, and take the next.

        When this is interrupted, it goes back, unless it was sent or discarded already.
        """
        self._way_out: Callable[[Reservation], bool] = self.queue.release
        settled = False
        try:
            following = self._open_and_deliver(reservation)
            settled = True
            return following
        finally:
            if not settled:
                self._way_out(reservation)

    def _open_and_deliver(self, reservation: Reservation) -> Reservation | None:
        if reservation.deliveries > HANDOUTS:
            return self._bury(reservation, f"it was in hand in {HANDOUTS} processes that died")
        try:
            envelope = loads(reservation.payload)
        except UnknownClass as error:
            return self._leave(reservation, error)
        except Unreadable as error:
            return self._bury(reservation, f"it is unreadable: {error}")
        fields = {"created": envelope.created, **envelope.extra}
        outcome = self._deliver(envelope, fields)
        if outcome.sent:
            return self._finish(reservation, "sent")
        if not outcome.requeue:
            return self._finish(reservation, "discarded")
        if self.backend.leaving:
            self._give_back(reservation)
            return None
        return self._requeue(reservation, envelope, fields)

    def _deliver(self, envelope: Envelope, fields: dict[str, Any]) -> Outcome:
        """Ask the hook, for half the lease at most; an error of its own is a failure like any other."""
        self.deadline.start(self.lease / 2)
        try:
            return Outcome(*self.backend._send_queued_messages(envelope.email, self.expired, fields))
        except Exception as error:  # a site's hook may raise anything
            logger.exception("The hook _send_queued_messages() failed.")
            return self.backend._failed(envelope.email, self.expired, fields, error)
        finally:
            self.deadline.clear()

    # settling

    def _finish(self, reservation: Reservation, outcome: str) -> Reservation | None:
        """Take a message off the queue that was sent or discarded; take the next in the same round trip."""
        self._way_out = self.queue.ack
        self.report.count(outcome)
        if self.quota.admit_at_once():
            settled, following = persist(lambda: self.queue.ack_and_reserve(reservation, self.lease))
        else:
            settled, following = persist(lambda: self.queue.ack(reservation)), None
        self._note(settled, outcome)
        return following or self._reserve()

    def _requeue(self, reservation: Reservation, envelope: Envelope, fields: dict[str, Any]) -> Reservation | None:
        """Put a message back that has failed. Without a connection it is the last, and did not fail itself."""
        self.report.count("requeued")
        payload, delay = self._renewed(envelope, fields)
        if self.backend.unreachable:
            delay = 0
        self._note(persist(lambda: self.queue.release(reservation, payload, delay)), "requeued")
        return None if self.backend.unreachable else self._reserve()

    def _renewed(self, envelope: Envelope, fields: dict[str, Any]) -> tuple[bytes | None, float]:
        """Serialise with what the hook left in the fields, and say when to try again.

        (None, 0), for the bytes as they were, when that fails.
        """
        try:
            return self.backend._wrap(envelope.email, **fields), retry_delay(fields)
        except Exception:  # a site's hook may put anything into the fields
            logger.exception("A message cannot be stored again as the hook left it; it is requeued as it was.")
            return None, 0

    def _bury(self, reservation: Reservation, reason: str) -> Reservation | None:
        self.report.count("buried")
        logger.error(
            "A payload of %d bytes is set aside in %s: %s", len(reservation.payload), self.queue.dead_name, reason
        )
        self._note(persist(lambda: self.queue.bury(reservation)), "buried")
        return self._reserve()

    def _leave(self, reservation: Reservation, error: UnknownClass) -> Reservation | None:
        """Leave a message to its lease: another process may have the class that it needs."""
        if not self.queue.leases:
            return self._bury(reservation, f"it is unreadable: {error}")
        self.report.count("requeued")
        logger.warning("A message stays in the queue until its lease ends: %s", error)
        return self._reserve()

    def _give_back(self, reservation: Reservation) -> None:
        """Put a message back that was not tried, as it was, and leave: others may take it."""
        self._note(persist(lambda: self.queue.release(reservation)), "given back")
        self.quota.put_back()

    def _note(self, settled: bool, outcome: str) -> None:
        if not settled:
            logger.warning(
                "A message was %s after its lease of %s s had ended, or the queue's answer was lost: "
                "another drain may handle it as well.",
                outcome,
                self.lease,
            )
