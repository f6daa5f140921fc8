"""The drain: take a message, let the backend deliver it, settle it with the queue.

Each message of the queue, as long as it was when the drain began, is tried once. Whatever goes wrong with one
message is that message's failure: it is logged and goes back to the queue, and the drain goes on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from .envelope import loads
from .errors import Unreadable
from .queues.base import MessageQueue, Reservation
from .settings import conf

logger = logging.getLogger(__name__)


class DrainResult(NamedTuple):
    """What ``send_queued_messages()`` returns, as in 0.1.2."""

    sent: int
    discarded: int
    #: How many messages were due when the drain began.
    length: int


@dataclass
class Report:
    """What a drain did. ``length`` is how many messages were due when it began."""

    length: int = 0
    sent: int = 0
    requeued: int = 0
    discarded: int = 0
    buried: int = 0

    @property
    def result(self) -> DrainResult:
        """The three figures that 0.1.2 returned."""
        return DrainResult(self.sent, self.discarded, self.length)


class Outcome(NamedTuple):
    """What the hook ``_send_queued_messages()`` says of a message."""

    sent: bool
    requeue: bool | None


#: The hook's answers; 0.1.2 had them as bare tuples, to which they are equal.
SENT = Outcome(True, None)
NOQUEUE = Outcome(False, False)
DOQUEUE = Outcome(False, True)


class DeliveringBackend(Protocol):
    """What the drain needs of a backend; mail.base.QueueingMixin has it."""

    que: MessageQueue

    def _wrap(self, email: Any, created: datetime | None = None, **kwargs: Any) -> bytes: ...

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]: ...

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome: ...


class Drain:
    """One pass over a backend's queue."""

    def __init__(self, backend: DeliveringBackend, expire: float) -> None:
        self.backend = backend
        self.queue = backend.que
        self.expired = datetime.fromtimestamp(max(time.time() - expire, 0))
        self.report = Report()

    def run(self) -> Report:
        """Try each message that is due now. Raises QueueUnavailable when the queue fails."""
        self.report.length = self.queue.counts().due
        for _ in range(self.report.length):
            reservation = self.queue.reserve(conf.MAIL_QUEUE_LEASE)
            if reservation is None:
                break
            self._process(reservation)
        return self.report

    def _process(self, reservation: Reservation) -> None:
        """Deliver and settle one message; put it back when this is interrupted."""
        settled = False
        try:
            self._deliver_and_settle(reservation)
            settled = True
        finally:
            if not settled:
                self.queue.release(reservation)

    def _deliver_and_settle(self, reservation: Reservation) -> None:
        try:
            envelope = loads(reservation.payload)
        except Unreadable as error:
            self._bury(reservation, error)
            return
        fields = {"created": envelope.created, **envelope.extra}
        outcome = self._deliver(envelope.email, fields)
        if outcome.sent:
            self.report.sent += 1
            self._note_lost_lease(self.queue.ack(reservation), "sent")
        elif outcome.requeue:
            self.report.requeued += 1
            payload = self._rewrap(envelope.email, fields)
            self._note_lost_lease(self.queue.release(reservation, payload), "requeued")
        else:
            self.report.discarded += 1
            self._note_lost_lease(self.queue.ack(reservation), "discarded")

    def _deliver(self, message: Any, fields: dict[str, Any]) -> Outcome:
        """Ask the hook; an error of its own is a failure like any other."""
        try:
            return Outcome(*self.backend._send_queued_messages(message, self.expired, fields))
        except Exception as error:  # a site's hook may raise anything
            logger.exception("The hook _send_queued_messages() failed.")
            return self.backend._failed(message, self.expired, fields, error)

    def _rewrap(self, message: Any, fields: dict[str, Any]) -> bytes | None:
        """Serialise with what the hook left in the fields; None, for the bytes as they were, when that fails."""
        try:
            return self.backend._wrap(message, **fields)
        except Exception:  # a site's hook may put anything into the fields
            logger.exception("A message cannot be stored again as the hook left it; it is requeued as it was.")
            return None

    def _bury(self, reservation: Reservation, error: Unreadable) -> None:
        self.report.buried += 1
        logger.error("A payload of %d bytes is unreadable and set aside: %s", len(reservation.payload), error)
        self._note_lost_lease(self.queue.bury(reservation), "buried")

    def _note_lost_lease(self, settled: bool, outcome: str) -> None:
        if not settled:
            logger.warning(
                "A message was %s after its lease of %s s had ended; another drain may have handled it as well.",
                outcome,
                conf.MAIL_QUEUE_LEASE,
            )
