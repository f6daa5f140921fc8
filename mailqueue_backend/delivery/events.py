"""What became of one message in a drain: a line in the log, and a signal."""

from __future__ import annotations

import json
import logging
import re
from dataclasses import dataclass, field
from functools import partial
from threading import get_ident
from typing import Any

from django.dispatch import Signal

from ..envelope import Meta
from ..errors import interrupts
from ..logs import get_logger
from ..signals import message_buried, message_discarded, message_requeued, message_sent
from .policy import Attempt
from .report import Outcome
from .verdict import Reply
from .words import decode_reply

logger = get_logger("delivery")

_SIGNALS = (message_sent, message_requeued, message_discarded, message_buried)
#: A value that needs no quotes in the log.
_PLAIN = re.compile(r"""[!#-<>-~]+""")


@dataclass
class Event:
    """What became of one message; ``signals`` documents the other fields."""

    #: "sent", "partly" (accepted for some recipients, but not for all), "requeued", "discarded" or "buried".
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


def are_wanted() -> bool:
    """Return whether anybody is interested in events: the log, or a receiver of a signal."""
    return logger.isEnabledFor(logging.INFO) or any(signal.has_listeners() for signal in _SIGNALS)


def announce(event: Event) -> None:
    """Log an event, and send its signal."""
    if logger.isEnabledFor(logging.INFO):
        fields = event.fields()
        line = " ".join(f"{name}={_quoted(value)}" for name, value in fields.items() if value != "")
        logger.info("%s", line, extra=fields)
    arguments = {name: value for name, value in vars(event).items() if name not in ("status", "signal", "sender")}
    send_signal(event.signal, event.sender, arguments)


def result_of(outcome: Outcome, attempt: Attempt, message: Any, everyone: list[str], meta: Meta) -> dict[str, Any]:
    """Return the fields of an event that say for whom a message was accepted; ``everyone``: all whom it was for."""
    remaining = [] if not outcome.requeue else everyone if meta.remaining is None else list(meta.remaining)
    recipients = list(attempt.accepted) or (everyone if outcome.sent else [])
    reasons = attempt.reasons(message)
    reason_of = {name: reason for reason, names in reasons.items() for name in names}
    error = "; ".join(reasons)
    given_up = [name for name in everyone if name not in recipients and name not in remaining]
    if outcome.requeue:
        status, signal = "partly" if recipients else "requeued", message_requeued
    elif outcome.sent:
        status, signal = "partly" if given_up else "sent", message_sent
    else:
        status, signal = "discarded", message_discarded
    return {
        "status": status,
        "signal": signal,
        "recipients": recipients,
        "refused": {name: reason_of.get(name, error) for name in given_up},
        "remaining": remaining,
        "error": error,
    }


def reply_to(attempt: Attempt, accepted: tuple[int, bytes] | None) -> str:
    """Return the server's last reply: the one that accepted the message, or else one that refused it; "": none."""
    if accepted is not None:
        return str(Reply("dot", *decode_reply(accepted)))
    refusals = [refusal.reply for refusal in attempt.refused]
    reply = next((reply for reply in (attempt.reply, attempt.doubt, *refusals) if reply is not None), None)
    return "" if reply is None else str(reply)


def send_signal(signal: Signal, sender: type, arguments: dict[str, Any]) -> None:
    """Send a signal, and log the exceptions of its receivers; raise only one that must end a drain.

    Django would log them, too, and mail them to ADMINS: such a mail would cause the next one when it is delivered.
    """
    dispatch = logging.getLogger("django.dispatch")
    leave_out = partial(_is_of_another_thread, get_ident())
    dispatch.addFilter(leave_out)
    results: list[tuple[Any, Any]]
    try:
        results = signal.send_robust(sender, **arguments)
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - Django fails to log the exception of a receiver without a name
        results = [("?", error)]
    finally:
        dispatch.removeFilter(leave_out)
    for receiver, result in results:
        if isinstance(result, interrupts()):
            raise result
        if isinstance(result, Exception):
            text = "Message %s: the receiver %r of a signal failed; nothing else is affected."
            logger.error(text, arguments["id"], receiver, exc_info=result)


def _is_of_another_thread(thread: int, record: logging.LogRecord) -> bool:
    return record.thread != thread


def _quoted(value: object) -> str:
    text = str(value)
    return text if _PLAIN.fullmatch(text) else json.dumps(text)
