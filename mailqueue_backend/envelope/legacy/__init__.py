"""Payloads that nobody vouches for, read as inert data: 0.1.2 wrote them, or a stranger did.

From bytes to a message it takes four steps, each of which refuses what it does not know: ``opcodes`` takes the
pickle apart, ``machine`` builds plain data and descriptions of objects from it, ``bounds`` measures the result,
and ``message`` (with ``mime`` and ``values``) makes new objects after the descriptions of stock messages. No name
in the payload is ever looked up, except in our own tables.
"""

from __future__ import annotations

from typing import Any

from ...errors import Unreadable, interrupts
from . import bounds, machine
from .message import read_message
from .opcodes import written_by_python2
from .values import plain, text

__all__ = ["peek", "read", "written_by_python2"]


def read(pickled: bytes, trusted: bool = False) -> dict[str, Any]:
    """Read 0.1.2's dict out of a pickle. Raises Unreadable, and nothing else, when it holds no stock message.

    A message of a site's own class is read too when the pickle is trusted.
    """
    try:
        content = machine.run(pickled)
        bounds.check(content)
        if type(content) is not dict:
            raise Unreadable("it is not a dict")
        items = {text(name): value for name, value in content.items()}
        email = read_message(items.pop("email", None), trusted)
        return {"email": email, **{name: plain(value) for name, value in items.items()}}
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - a stranger can make Django and the standard library raise anything
        raise Unreadable(f"reading it as plain data raised {type(error).__name__}") from None


def peek(pickled: bytes) -> dict[str, Any]:
    """Read what is plain data in 0.1.2's dict, and leave out the rest. Raises Unreadable, and nothing else."""
    try:
        content = machine.run(pickled)
        bounds.check(content)
        if type(content) is not dict:
            raise Unreadable("it is not a dict")
        return {text(name): value for name, value in content.items() if isinstance(value, (dict, str))}
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - as in read()
        raise Unreadable(f"reading it as plain data raised {type(error).__name__}") from None
