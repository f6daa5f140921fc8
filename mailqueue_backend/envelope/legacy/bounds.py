"""How large a value may become once it is copied out of the machine.

References are shared in a pickle: a few kB can stand for 2**40 parts, and a list can contain itself. Whoever
follows the references from here on may recurse without counting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ...errors import Unreadable
from .machine import Record
from .opcodes import OPCODE_LIMIT, SIZE_LIMIT

#: Parts, each counted as often as it is referred to.
PART_LIMIT = OPCODE_LIMIT
#: Stock messages go ten deep; a multipart takes four levels for each level of its own.
DEPTH_LIMIT = 64


def check(value: Any) -> None:
    """Raise Unreadable unless the value, taken as a tree, keeps to all bounds."""
    parts = size = depth = 0
    level = [value]
    while level:
        following: list[Any] = []
        for part in level:
            if children_of := _CHILDREN.get(type(part)):
                children = children_of(part)
                parts += len(children)
                if parts > PART_LIMIT:
                    raise Unreadable(f"it refers to more than {PART_LIMIT} parts, some of them repeatedly")
                following += children
            elif isinstance(part, (str, bytes)):
                size += len(part)
        if size > SIZE_LIMIT:
            raise Unreadable(f"it would grow beyond {SIZE_LIMIT} bytes")
        depth += 1
        if depth > DEPTH_LIMIT:
            raise Unreadable(f"it is nested more than {DEPTH_LIMIT} deep")
        level = following


def _itself(part: Collection[Any]) -> Collection[Any]:
    return part


#: By type, the parts that a part refers to.
_CHILDREN: dict[type, Callable[[Any], Collection[Any]]] = {
    list: _itself,
    tuple: _itself,
    dict: lambda part: [*part, *part.values()],
    Record: lambda record: (record.arguments, record.state),
}
