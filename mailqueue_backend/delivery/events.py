"""What became of messages: a line in the log and a signal for each, and a signal for all."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from threading import get_ident
from typing import Any

from django.dispatch import Signal

from ..errors import interrupts
from ..logs import get_logger
from ..signals import message_buried, message_discarded, message_events, message_requeued, message_sent

logger = get_logger("delivery")

_SIGNALS = (message_sent, message_requeued, message_discarded, message_buried, message_events)
#: A value that needs no quotes in the log.
_PLAIN = re.compile(r"""[!#-<>-~]+""")


@dataclass
class Event:
    """What became of one message; ``signals`` documents the other fields."""

    #: "queued", "sent", "partly" (accepted for some recipients, but not for all), "requeued", "discarded" or "buried".
    status: str
    signal: Signal
    sender: type
    queue: str
    id: str
    mailer: str = "default"
    message: Any = None
    message_id: str = ""
    recipients: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    remaining: list[str] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    attempts: int = 0
    reply: str = ""
    error: str = ""
    age: float = 0
    seconds: float = 0
    relay: str = ""

    def fields(self) -> dict[str, Any]:
        """Return the fields of the log line, in order; those of the record's ``extra``, too."""
        concerned = self.recipients or [*self.refused, *self.remaining]
        return {
            "status": self.status,
            "queue": self.queue,
            "id": self.id,
            "mailer": self.mailer,
            "message_id": self.message_id,
            "to": ",".join(concerned),
            "attempts": self.attempts,
            "age": round(self.age, 1),
            "seconds": round(self.seconds, 2),
            "relay": self.relay,
            "reply": self.reply,
            "error": self.error,
        }


class Announcer:
    """Announces the events of a drain: in the log, by signals, and to the caller of the drain."""

    def __init__(self, on_event: Callable[[Event], object] | None = None) -> None:
        #: Called with each event; None: nothing, or it has failed.
        self._on_event = on_event

    @property
    def is_listened_to(self) -> bool:
        """Whether anybody is interested in events."""
        has_receivers = any(signal.has_listeners() for signal in _SIGNALS)
        return has_receivers or self._on_event is not None or logger.isEnabledFor(logging.INFO)

    def announce(self, event: Event) -> None:
        """Log an event, send its signal, and call the callback."""
        if logger.isEnabledFor(logging.INFO):
            fields = event.fields()
            line = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value != "")
            logger.info("%s", line, extra=fields)
        arguments = {name: value for name, value in vars(event).items() if name not in ("status", "signal", "sender")}
        send_signal(event.signal, event.sender, arguments)
        if self._on_event is not None:
            self._call_back(self._on_event, event)

    def announce_group(self, events: Sequence[Event]) -> None:
        """Send message_events for events that were announced one by one."""
        if events:
            send_signal(message_events, events[0].sender, {"events": events})

    def _call_back(self, on_event: Callable[[Event], object], event: Event) -> None:
        """Pass an event to the caller. After an error, such as a closed pipe, pass no more."""
        try:
            on_event(event)
        except interrupts():
            raise
        except Exception:
            self._on_event = None
            logger.exception("The callback for events failed, and is called no more; nothing else is affected.")


def send_signal(signal: Signal, sender: type, arguments: dict[str, Any]) -> None:
    """Send a signal, and log the exceptions of its receivers; raise only one that must end a drain.

    Django would log them, too, and mail them to ADMINS: such a mail would cause the next one when it is delivered.
    """
    dispatch, held = logging.getLogger("django.dispatch"), _Held()
    dispatch.addFilter(held)
    results: list[tuple[Any, Any]]
    try:
        results = signal.send_robust(sender, **arguments)
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - Django fails to log the exception of a receiver without a name
        results = [("?", error)]
    finally:
        dispatch.removeFilter(held)
    errors = {id(result): receiver for receiver, result in results if isinstance(result, Exception)}
    for receiver, result in results:
        if isinstance(result, interrupts()):
            raise result
        if isinstance(result, Exception):
            name = getattr(receiver, "__qualname__", type(receiver).__qualname__)
            about = f"Message {arguments['id']}: the" if "id" in arguments else "The"
            logger.error("%s receiver %s of a signal failed; nothing else is affected.", about, name, exc_info=result)
    for record in held.records:
        if id(record.exc_info and record.exc_info[1]) not in errors:  # of a signal that a receiver has sent
            logger.error("%s", record.getMessage(), exc_info=record.exc_info)


class _Held(logging.Filter):
    """Holds back the records of this thread."""

    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self._thread = get_ident()

    def filter(self, record: logging.LogRecord) -> bool:
        if record.thread == self._thread:
            self.records.append(record)
            return False
        return True


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
