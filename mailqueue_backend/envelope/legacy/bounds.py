"""Limit the size of a value before it is copied out of the machine.

A pickle shares references: a few kB can expand to 2**40 parts, and a list can contain itself. A value that has
passed this check can be copied recursively without further limits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ...errors import Unreadable
from .machine import Record
from .opcodes import OPCODE_LIMIT, SIZE_LIMIT

#: Maximum number of parts; a part counts once for each reference to it.
PART_LIMIT = OPCODE_LIMIT
#: Maximum nesting. Stock messages have ten levels; a MIME multipart adds four per level.
DEPTH_LIMIT = 64


def check(value: Any) -> None:
    """Raise Unreadable if the value, expanded to a tree, exceeds one of the limits."""
    parts = size = depth = 0
    level = [value]
    while level:
        next_level: list[Any] = []
        for part in level:
            if get_children := _CHILDREN.get(type(part)):
                children = get_children(part)
                parts += len(children)
                if parts > PART_LIMIT:
                    raise Unreadable(f"the payload refers to more than {PART_LIMIT} parts, some of them repeatedly")
                next_level += children
            elif isinstance(part, (str, bytes)):
                size += len(part)
        if size > SIZE_LIMIT:
            raise Unreadable(f"the payload would grow to more than {SIZE_LIMIT} bytes")
        depth += 1
        if depth > DEPTH_LIMIT:
            raise Unreadable(f"the payload is nested more than {DEPTH_LIMIT} levels deep")
        level = next_level


def _itself(part: Collection[Any]) -> Collection[Any]:
    return part


#: By type, the function that returns the parts of a part.
_CHILDREN: dict[type, Callable[[Any], Collection[Any]]] = {
    list: _itself,
    tuple: _itself,
    dict: lambda part: [*part, *part.values()],
    Record: lambda record: (record.arguments, record.state),
}
