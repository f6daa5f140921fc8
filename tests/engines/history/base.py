"""A site with the queue and the history in one database."""

from __future__ import annotations

import logging
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage
from django.db import connections
from django.db.models import QuerySet
from django.test import override_settings

from mailqueue_backend.delivery.events import Event
from mailqueue_backend.delivery.report import Report
from mailqueue_backend.history import receivers
from mailqueue_backend.history.models import Recipient
from mailqueue_backend.history.writer import Writer
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.signals import message_sent
from tests.cases import DiscardLogMixin, message
from tests.smtp import Script, ScriptedServer, good

HISTORY = "mailqueue_backend.history"


class Router:
    """Sends the history to a database."""

    def __init__(self, alias: str) -> None:
        self.alias = alias

    def db_for_write(self, model: Any, **hints: Any) -> str | None:
        return self.alias if model is Recipient else None

    db_for_read = db_for_write


class HistoryCase(DiscardLogMixin):
    """The history is written; subclasses set ``alias``."""

    alias: str

    def setUp(self) -> None:
        super().setUp()
        settings = override_settings(MAIL_QUEUE_DATABASE=self.alias, DATABASE_ROUTERS=[Router(self.alias)])
        settings.enable()
        self.addCleanup(settings.disable)
        writer = mock.patch.object(receivers, "_writer", Writer())
        writer.start()
        self.addCleanup(writer.stop)
        receivers.connect()
        self.addCleanup(receivers.disconnect)
        quiet = mock.patch.object(logging.getLogger("mailqueue_backend.delivery"), "disabled", True)
        quiet.start()
        self.addCleanup(quiet.stop)

    @property
    def connection(self) -> Any:
        return connections[self.alias]

    @property
    def rows(self) -> QuerySet[Recipient]:
        return Recipient.objects.using(self.alias)

    def send(self, *to: str, **kwargs: Any) -> EmailMessage:
        mail = message("Your order", list(to) or ["to@example.com"], **kwargs)
        QueuedEmailBackend().send_messages([mail])
        return mail

    def drain(self, script: Script = good, **kwargs: Any) -> Report:
        with ScriptedServer(script) as server:
            backend = QueuedEmailBackend("127.0.0.1", server.port, timeout=10)
            backend.send_queued_messages(**kwargs)
        self.stored = server.stored
        return backend.report

    def statuses(self) -> dict[str, str]:
        return dict(self.rows.values_list("address", "status"))

    def record(self, *addresses: str, **fields: Any) -> None:
        """Record that the server has accepted messages with one recipient each, or what ``fields`` say instead."""
        receivers.record([self.event(address, **fields) for address in addresses])

    def event(self, address: str, **fields: Any) -> Event:
        mail = message("Your order", [address])
        given = {"message_id": f"<{address}>", "id": "0123456789ab", "recipients": [address], **fields}
        return Event("sent", message_sent, QueuedEmailBackend, "MAIL_QUEUE", message=mail, **given)
