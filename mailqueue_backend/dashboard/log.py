"""The admin's log: who has read which message, and who has done what."""

from __future__ import annotations

from django.contrib.admin.models import CHANGE, DELETION, LogEntry
from django.contrib.contenttypes.models import ContentType
from django.http import HttpRequest

from ..inspection.messages import Message
from .models import Queue


def log_message(request: HttpRequest, message: Message, what: str) -> None:
    """Write that a user has read a message or acted on it. The log shows its id, and nothing that is in it."""
    flag = DELETION if what.startswith("Discard") else CHANGE
    _write(request, flag, message.id, f"message {message.id} in {message.queue.name}", what)


def log_queue(request: HttpRequest, name: str, what: str) -> None:
    """Write that a user has acted on a queue."""
    _write(request, CHANGE, name, name, what)


def _write(request: HttpRequest, flag: int, object_id: str, name: str, what: str) -> None:
    # Django < 5.1 has no log_actions(), and Django >= 6.0 no log_action().
    LogEntry.objects.create(
        user_id=request.user.pk,  # type: ignore[misc]
        content_type=ContentType.objects.get_for_model(Queue),
        object_id=object_id,
        object_repr=name[:200],
        action_flag=flag,
        change_message=what,
    )
