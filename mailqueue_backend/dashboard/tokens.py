"""Messages in addresses of pages: signed bookmarks, so that only what a page has listed can be asked for."""

from __future__ import annotations

from django.core import signing
from django.http import Http404

from ..inspection.messages import Message, open_entry
from ..queues.base import Entry, MessageQueue

#: The purposes: a token for one is not valid for another.
MESSAGE, CURSOR, PART = "message", "cursor", "part"
#: Seconds for which the parts of a message can be loaded after its page, whose view is logged.
PARTS_VALID = 3600


def token_for(queue: MessageQueue, entry: Entry, purpose: str, user: object = None) -> str:
    """Return a token, for all users or for one."""
    return signing.dumps([queue.name, user, queue.bookmark(entry)], salt=_salt(purpose))


def entry_of(queue: MessageQueue, token: str, purpose: str, user: object = None) -> Entry:
    """Return the entry of a token, without its payload. Raises Http404 if the token is not valid, or too old."""
    age = PARTS_VALID if purpose == PART else None
    try:
        name, owner, bookmark = signing.loads(token, salt=_salt(purpose), max_age=age)
    except signing.BadSignature as error:
        raise Http404("This address is not valid, or no longer. Open the message from its list again.") from error
    if (name, owner) != (queue.name, user):
        raise Http404("This address is of another queue or user.")
    return queue.entry_at(bookmark)


def message_of(queue: MessageQueue, token: str, purpose: str, user: object = None) -> Message | None:
    """Return the message of a token as it is now; None if it is not found. Raises Http404, QueueUnavailable."""
    entry = queue.refresh(entry_of(queue, token, purpose, user))
    return None if entry is None else open_entry(queue, entry)


def _salt(purpose: str) -> str:
    return f"mailqueue_backend.dashboard.{purpose}"
