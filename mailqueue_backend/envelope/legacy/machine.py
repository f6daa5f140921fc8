"""Pickle's stack machine, building data alone: it imports no name and calls nothing.

The standard library's Unpickler will not do, not even with harmless classes to give out. It puts any value into a
dict as a key, so that a hundred bytes make it hash 2**40 shared tuples, and a megabyte of nested ones kills the
process; and it sizes its memo by a number in the payload.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import Unreadable
from .opcodes import ByteString, scan


class Name(NamedTuple):
    """A global that the payload names. A name is all it is."""

    module: str
    name: str


@dataclass(eq=False, slots=True)
class Record:
    """What a payload says about an object: what makes it, from what, and the state that is set on it."""

    maker: Name
    arguments: tuple[Any, ...]
    state: Any = None


#: How Python 2 spells the making of an object: by class, base class, and what the base class is made from.
_RECONSTRUCTOR = Name("copy_reg", "_reconstructor")
_OBJECT = Name("__builtin__", "object")


def run(pickled: bytes) -> Any:
    """Build the value: of None, numbers, text, bytes, lists, tuples, dicts, Names and Records. May be cyclic."""
    opcodes = scan(pickled)
    machine = _Machine()
    try:
        for opcode, argument in opcodes:
            if step := _STEPS.get(opcode):
                step(machine, argument)
            else:
                machine.stack.append(argument)
        (result,) = machine.stack
    except (IndexError, KeyError, ValueError, TypeError):
        raise Unreadable("its opcodes do not fit together") from None
    return result


class _Machine:
    """The stack, what lies below the marks, and the memo, which is a dict: its numbers allocate nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, argument: Any) -> None:
        self.stack.append(argument)

    def mark(self, argument: None) -> None:
        self.below.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.below.pop()
        return values

    # values

    def marked_tuple(self, argument: None) -> None:
        self.push(tuple(self.pop_mark()))

    def marked_list(self, argument: None) -> None:
        self.push(self.pop_mark())

    def marked_dict(self, argument: None) -> None:
        values = self.pop_mark()
        self.push({})
        self._set(values)

    # filling

    def append(self, argument: None) -> None:
        self._extend([self.stack.pop()])

    def appends(self, argument: None) -> None:
        self._extend(self.pop_mark())

    def _extend(self, values: list[Any]) -> None:
        _expect(list, self.stack[-1]).extend(values)

    def set_item(self, argument: None) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def set_items(self, argument: None) -> None:
        self._set(self.pop_mark())

    def _set(self, values: list[Any]) -> None:
        target = _expect(dict, self.stack[-1])
        for key, value in zip(values[::2], values[1::2], strict=True):
            target[_key(key)] = value

    # memo

    def put(self, number: int) -> None:
        self.memo[number] = self.stack[-1]

    def memoize(self, argument: None) -> None:
        self.put(len(self.memo))

    def get(self, number: int) -> None:
        self.push(self.memo[number])

    # names and records

    def name(self, argument: tuple[str, str]) -> None:
        self.push(Name(*argument))

    def stack_name(self, argument: None) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.push(Name(_expect(str, module), _expect(str, name)))

    def make(self, argument: None) -> None:
        arguments, maker = self.stack.pop(), self.stack.pop()
        if maker == _RECONSTRUCTOR:
            maker, base, value = arguments
            arguments = () if base == _OBJECT else (value,)
        self.push(Record(_expect(Name, maker), _expect(tuple, arguments)))

    def make_named(self, argument: tuple[str, str]) -> None:
        self.push(Record(Name(*argument), tuple(self.pop_mark())))

    def make_marked(self, argument: None) -> None:
        maker, *arguments = self.pop_mark()
        self.push(Record(_expect(Name, maker), tuple(arguments)))

    def build(self, argument: None) -> None:
        state = self.stack.pop()
        record = _expect(Record, self.stack[-1])
        if record.state is not None:
            raise TypeError
        record.state = state


def _expect(kind: type[Any], value: Any) -> Any:
    """Give the value back if it is exactly of this type, no subclass."""
    if type(value) is not kind:
        raise TypeError
    return value


def _key(value: Any) -> Any:
    """Give a dict's key back if it can be hashed at no cost worth mentioning, and not be made to collide."""
    if type(value) in (str, bytes, ByteString) or (type(value) is int and abs(value) < 2**31):
        return value
    raise TypeError


def _pushes(make: Callable[[], Any]) -> Callable[[_Machine, Any], None]:
    return lambda machine, _: machine.stack.append(make())


def _tuple_of(size: int) -> Callable[[_Machine, Any], None]:
    def step(machine: _Machine, argument: None) -> None:
        values = [machine.stack.pop() for _ in range(size)]
        machine.push(tuple(reversed(values)))

    return step


def _ignore(machine: _Machine, argument: Any) -> None:
    """PROTO and FRAME tell a reader how to read; we have all bytes at hand."""


def _table(steps: dict[str, Callable[[_Machine, Any], None]]) -> dict[int, Callable[[_Machine, Any], None]]:
    """Give each of the opcodes that stand together in a key its step."""
    return {ord(opcode): step for opcodes, step in steps.items() for opcode in opcodes}


#: All opcodes but those that push their argument.
_STEPS = _table(
    {
        "\x80\x95": _ignore,
        "(": _Machine.mark,
        "\x88": _pushes(lambda: True),
        "\x89": _pushes(lambda: False),
        "]": _pushes(list),
        ")": _pushes(tuple),
        "}": _pushes(dict),
        "\x85": _tuple_of(1),
        "\x86": _tuple_of(2),
        "\x87": _tuple_of(3),
        "t": _Machine.marked_tuple,
        "l": _Machine.marked_list,
        "d": _Machine.marked_dict,
        "a": _Machine.append,
        "e": _Machine.appends,
        "s": _Machine.set_item,
        "u": _Machine.set_items,
        "qrp": _Machine.put,
        "\x94": _Machine.memoize,
        "hjg": _Machine.get,
        "c": _Machine.name,
        "\x93": _Machine.stack_name,
        "R\x81": _Machine.make,  # REDUCE, NEWOBJ
        "i": _Machine.make_named,
        "o": _Machine.make_marked,
        "b": _Machine.build,
    }
)
