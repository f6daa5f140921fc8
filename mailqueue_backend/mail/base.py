"""QueueingMixin: the backend that stores messages, and delivers them later through the class behind it."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from threading import RLock
from typing import Any

from django.core.mail.backends.smtp import EmailBackend as SMTPBackend

from ..delivery.breaker import Breaker
from ..delivery.deadlines import Deadline
from ..delivery.drain import Drain
from ..delivery.outcomes import DOQUEUE, NOQUEUE, SENT, DrainResult, Outcome, Report
from ..delivery.quota import DrainOptions
from ..discards import attach_handler
from ..logs import get_logger
from ..settings import conf
from .mailers import DEFAULT_ALIAS, configured, queueing_mailers, with_unnamed
from .refusals import Refusal, addressed_to
from .storing import StoringMixin, in_delivery
from .verdict import after_delivery, after_failure, remaining

logger = get_logger("delivery")
attach_handler()

#: Why a message is tried again where the class behind says that it has sent none.
NOT_SENT = "nobody to send it to, or not sent"


class QueueingMixin(StoringMixin):
    """Put before a Django e-mail backend, it makes ``send_messages()`` queue, and ``send_queued_messages()`` deliver.

    ``report`` holds all figures of the last drain, ``options`` what the next one is asked to do.
    """

    SENT = SENT
    NOQUEUE = NOQUEUE
    DOQUEUE = DOQUEUE

    #: Other workers of the drain have a connection: one that gets none leaves the work to them.
    helping = False
    #: _helper() gives a copy that has a connection of its own.
    copyable = False

    def __init__(self, *args: Any, test: bool = False, **kwargs: Any) -> None:
        """Take what the backend behind takes; ``test`` is accepted for 0.1.2's sake and changes nothing."""
        super().__init__(*args, **kwargs)
        self.report = Report()
        self.options = DrainOptions()
        self._breaker = Breaker()
        self._deadline: Deadline | None = None
        self._depth = 0
        #: Whom the server turned away in the last try; a transport that cannot tell leaves it empty.
        self._refused: list[Refusal] = []
        self._drain_lock = RLock()

    def send_queued_messages(self, expire: float | None = None) -> DrainResult:
        """Try each queued message once; one that fails and is older than ``expire`` seconds is discarded.

        Raises QueueUnavailable. Works in any thread.
        """
        with self._drain_lock:
            drain = Drain(self, conf.MAIL_QUEUE_EXPIRE if expire is None else expire)
            self.report = drain.report
            return drain.run().result

    def _send_queued_messages(
        self, email_message: Any, expired: datetime, email_message_dict: dict[str, Any]
    ) -> tuple[bool, bool | None]:
        """Deliver one message and say what becomes of it: SENT, DOQUEUE (try again) or NOQUEUE (give it up).

        A hook for subclasses: what it puts into ``email_message_dict`` survives a requeue. A message that fails
        is given up when it was created before ``expired``; that is logged here. A subclass that may be called
        in several threads at once says ``parallel = True``.
        """
        try:
            outgoing = self._outgoing(email_message, remaining(email_message_dict))
            with self._delivering(), in_delivery(outgoing):
                # Of the class behind: our own stores.
                sent = super(StoringMixin, self).send_messages([outgoing])
        except Exception as error:  # noqa: BLE001 - rendering and transport are not ours; the verdict logs it
            return self._failed(email_message, expired, email_message_dict, error)
        if sent == 0:
            return self._failed(email_message, expired, email_message_dict, NOT_SENT)
        return after_delivery(email_message, expired, email_message_dict, self._take_refused())

    def _outgoing(self, message: Any, recipients: list[str] | None) -> Any:
        """Give what the class behind gets: another one than SMTP may leave its marks on a message."""
        own = message if isinstance(self, SMTPBackend) else copy.deepcopy(message)
        return own if recipients is None else addressed_to(own, recipients)

    def _failed(self, message: Any, expired: datetime, fields: dict[str, Any], error: object) -> Outcome:
        """Judge a message that nobody got; not in haste, and not when another worker can do better."""
        refused = self._take_refused()
        if self.leaving:
            return self.DOQUEUE
        return after_failure(message, expired, fields, error, refused, reached=not self.unreachable)

    def _take_refused(self) -> list[Refusal]:
        """Give whom the server turned away, once: the next message may fail before it is asked."""
        refused, self._refused = self._refused, []
        return refused

    # what the drain needs

    @property
    def unreachable(self) -> bool:
        """No connection can be made."""
        return self._breaker.error is not None

    def _mailers(self) -> dict[str | None, QueueingMixin]:
        """Give the backends by which what is queued may have been sent, by alias; None: of what names no mailer.

        A mailer whose mail goes to another queue is there too: some of its mail may be older than that.
        """
        if configured() is None:
            return {None: self, DEFAULT_ALIAS: self}
        mailers, _ = queueing_mailers()
        alias = getattr(self, "alias", None)
        if alias is None:  # made by hand
            return {**mailers, None: self}
        return with_unnamed({**mailers, alias: self}, self.queue_name)

    @property
    def leaving(self) -> bool:
        """This worker shall go now: what it has in hand was not really tried."""
        return (self.unreachable and self.helping) or self.options.stop.forced_by is not None

    @property
    def parallel(self) -> bool:
        """The hook may be called in several threads; a hook of 2015 knows nothing of threads."""
        return self.copyable and type(self)._send_queued_messages is QueueingMixin._send_queued_messages

    @contextmanager
    def _delivering(
        self, deadline: Deadline | None = None, connected: Callable[[], None] | None = None
    ) -> Iterator[None]:
        """Let open() connect and errors be raised; the outermost block hangs up at its end."""
        self._depth += 1
        if self._depth == 1:
            silent, self.fail_silently = self.fail_silently, False
            self._deadline, self._breaker = deadline, Breaker(connected)
        try:
            yield
        finally:
            self._depth -= 1
            if not self._depth:
                self._hang_up()
                self.fail_silently = silent

    def _helper(self) -> QueueingMixin:
        """Copy this backend for another thread; the copy has a connection of its own."""
        duplicate = copy.copy(self)
        duplicate.helping = True
        duplicate._depth = 0
        return duplicate

    def open(self) -> Any:
        """Connect while delivering. Storing needs no connection, so that ``with get_connection():`` makes none."""
        if not self._depth:
            return None
        known = self.unreachable
        try:
            return self._breaker.connect(self._connect)
        except Exception as error:
            if not known:
                # A server may limit its connections; that is nothing to worry about.
                level = logging.INFO if self.helping else logging.WARNING
                alias = getattr(self, "alias", None) or DEFAULT_ALIAS
                text = "No connection can be made (mailer %r): %s"
                logger.log(level, text, alias, error, exc_info=not self.helping)
            raise

    def _connect(self) -> Any:
        return super().open()

    def _hang_up(self) -> None:
        """Close the connection; what the server says to that changes nothing."""
        try:
            self.close()
        except Exception:  # any transport may stand behind
            logger.debug("Closing the connection failed.", exc_info=True)
