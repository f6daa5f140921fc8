"""Read unsigned payloads as inert data: 0.1.2 or an attacker may have written them.

Bytes become a message in four steps, each of which rejects anything it does not know: ``opcodes`` splits the
pickle into opcodes, ``machine`` turns them into plain data and records of objects, ``bounds`` limits the size of the
result, and ``message`` (with ``mime`` and ``values``) builds new messages from the records. A name in such a payload is
looked up only in our own tables.
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
    """Read 0.1.2's dict from a pickle. The only error raised is Unreadable, for anything but a stock message.

    With ``trusted``, the message may also be of a site's own class.
    """
    try:
        content = machine.run(pickled)
        bounds.check(content)
        if type(content) is not dict:
            raise Unreadable("the payload is not a dict")
        items = {text(name): value for name, value in content.items()}
        email = read_message(items.pop("email", None), trusted)
        return {"email": email, **{name: plain(value) for name, value in items.items()}}
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - a crafted payload can make Django raise any exception
        raise Unreadable(f"reading the payload as plain data raised {type(error).__name__}") from None


def peek(pickled: bytes) -> dict[str, Any]:
    """Read the texts and dicts in 0.1.2's dict, and skip all other values. The only error raised is Unreadable."""
    try:
        content = machine.run(pickled)
        bounds.check(content)
        if type(content) is not dict:
            raise Unreadable("the payload is not a dict")
        return {text(name): value for name, value in content.items() if isinstance(value, (dict, str))}
    except Unreadable:
        raise
    except interrupts():
        raise
    except Exception as error:  # noqa: BLE001 - as in read()
        raise Unreadable(f"reading the payload as plain data raised {type(error).__name__}") from None
