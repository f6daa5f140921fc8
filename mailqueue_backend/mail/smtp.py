"""QueuedEmailBackend: the SMTP backend with a queue in front, under the path that 0.1.2 published."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from threading import Event, RLock
from typing import Any

from django.core import mail
from django.core.mail.backends.smtp import EmailBackend

from ..delivery.deadlines import Deadline
from ..discards import LOGGER, attach_handler
from .attachments import lean
from .base import QueueingMixin
from .connection import DeliveryMixin, DeliverySMTP, DeliverySMTPOverSSL
from .pipelining import OutOfStep
from .refusals import refusals

__all__ = ["FORMATTER", "LFH", "LOGGER", "QueuedEmailBackend"]

LFH = attach_handler()  # 0.1.2
FORMATTER = LFH.formatter  # 0.1.2

#: Messages that one connection carries at most; servers often allow so many, and no more.
MESSAGES_PER_CONNECTION = 100
#: Seconds that one step of a delivery may block where no timeout is configured.
TIMEOUT = 60
#: What we put in the place of smtplib's own classes, and of nothing else.
_CONNECTION_CLASSES = {smtplib.SMTP: DeliverySMTP, smtplib.SMTP_SSL: DeliverySMTPOverSSL}


class QueuedEmailBackend(QueueingMixin, EmailBackend):
    """Queues messages, and delivers them over one SMTP connection when ``send_queued_messages()`` is called."""

    copyable = True

    def __init__(
        self,
        host: str | None = None,
        port: int | None = None,
        username: str | None = None,
        password: str | None = None,
        use_tls: bool | None = None,
        fail_silently: bool = False,
        test: bool = False,
        **kwargs: Any,
    ) -> None:
        """Take what Django's SMTP backend takes; ``test`` is accepted for 0.1.2's sake and changes nothing."""
        if hasattr(mail, "mailers"):
            # Django >= 6.1: made without MAILERS, and meant so; without this word it warns.
            kwargs.setdefault("alias", None)
        super().__init__(
            host=host,
            port=port,
            username=username,
            password=password,
            use_tls=use_tls,
            fail_silently=fail_silently,
            test=test,
            **kwargs,
        )
        #: Set: pipelining has failed in this drain; shared with the helpers.
        self._plain = Event()
        #: Messages that the connection has carried, delivered or not; not those whose MAIL was refused.
        self._carried = 0

    # the connection

    @property
    def connection_class(self) -> Any:
        """smtplib's class as we extend it; a patched smtplib, and a site's own class, are left alone."""
        chosen = super().connection_class
        extended = _CONNECTION_CLASSES.get(chosen)
        if extended is None:
            return chosen
        return partial(extended, deadline=self._deadline or Deadline(), plain=self._plain)

    def open(self) -> bool | None:
        """Connect while delivering, unless there is a usable connection; None otherwise.

        A new connection is reported as an old one (False): Django's send_messages() leaves those open.
        """
        self._retire_connection()
        if self.connection is None and self._time_is_over:
            raise smtplib.SMTPServerDisconnected("The time for this message is over")
        opened = False
        try:
            answer = super().open()
            opened = True
        finally:
            if not opened:
                self._drop_connection()
        return None if answer is None else False

    def _connect(self) -> bool | None:
        """Connect and greet, since a server that refuses the greeting refuses no message."""
        made: bool | None = super()._connect()
        if made:
            self._carried = 0
        if ours := self._our_connection:
            ours.ehlo_or_helo_if_needed()
        return made

    @property
    def _our_connection(self) -> DeliveryMixin | None:
        """The connection, if it is of our own class."""
        connection = self.connection
        return connection if isinstance(connection, DeliveryMixin) else None

    @property
    def _time_is_over(self) -> bool:
        return self._deadline is not None and self._deadline.fired

    def _retire_connection(self) -> None:
        """Part with a connection that smtplib or the server has closed, or that has carried enough."""
        connection = self.connection
        if connection is None:
            return
        ours = self._our_connection
        if not (ours.usable() if ours else getattr(connection, "sock", True)):
            self._drop_connection()
        elif self._carried >= MESSAGES_PER_CONNECTION:
            self._hang_up()

    def _drop_connection(self) -> None:
        """Close without a word to the server, a half-open connection too: it may lack its TLS or its login."""
        for name in ("connection", "_partial_connection"):
            connection = getattr(self, name, None)
            if connection is not None:
                setattr(self, name, None)
                connection.close()

    @contextmanager
    def _delivering(self, *args: Any, **kwargs: Any) -> Iterator[None]:
        timeout = self.timeout
        self.timeout = TIMEOUT if timeout is None else timeout
        if not (self._depth or self.helping):
            self._plain = Event()
        try:
            with super()._delivering(*args, **kwargs):
                yield
        finally:
            self.timeout = timeout

    def _helper(self) -> QueueingMixin:
        helper = super()._helper()
        helper.connection, helper._lock = None, RLock()  # type: ignore[attr-defined]
        return helper

    # one message

    def _send(self, email_message: Any) -> bool:
        """Deliver one message, over a new connection where the old one may be what the server objects to."""
        try:
            return self._send_once(email_message)
        except OutOfStep:
            self._plain.set()
        except smtplib.SMTPSenderRefused as error:
            if error.smtp_code not in (421, 452) or not self._carried:
                raise
        self._hang_up()
        self.open()
        return self._send_once(email_message)

    def _send_once(self, email_message: Any) -> bool:
        """Deliver one message; drop the connection when an error may have left it in mid-transaction."""
        self._carried += 1
        sent: bool = False
        try:
            sent = super()._send(lean(email_message))  # type: ignore[misc]
            self._note_refused(email_message, getattr(self.connection, "refused", {}))
        except smtplib.SMTPSenderRefused:
            self._carried -= 1  # not this one
            raise
        except smtplib.SMTPRecipientsRefused as error:
            self._note_refused(email_message, error.recipients)
            raise
        finally:
            ours = self._our_connection
            if ours.in_transaction if ours else not sent:
                self._drop_connection()
        return sent

    def _note_refused(self, message: Any, replies: Any) -> None:
        if ours := self._our_connection:
            self._refused = refusals(message.recipients(), ours.recipients, replies)
