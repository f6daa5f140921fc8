"""Pickle's stack machine, restricted to data: it imports nothing and calls nothing.

The standard library's Unpickler is unsafe here even if find_class() returns harmless classes. It accepts any value as
a dict key, so a hundred bytes make it hash 2**40 shared tuples, and a megabyte of nested tuples crashes the process.
It also allocates a memo of whatever size the payload asks for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from ...errors import Unreadable
from .opcodes import ByteString, scan


class Name(NamedTuple):
    """The name of a global in the payload; it is never imported."""

    module: str
    name: str


@dataclass(eq=False, slots=True)
class Record:
    """An object as the payload describes it: its class or factory, the arguments, and the state set afterwards."""

    maker: Name
    arguments: tuple[Any, ...]
    state: Any = None


#: Python 2 creates objects by ``copy_reg._reconstructor(class, base class, initial value)``.
_RECONSTRUCTOR = Name("copy_reg", "_reconstructor")
_OBJECT = Name("__builtin__", "object")


def run(pickled: bytes) -> Any:
    """Return the pickled value: None, numbers, text, bytes, lists, tuples, dicts, Names and Records. May be cyclic."""
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
        raise Unreadable("the payload is no valid sequence of opcodes") from None
    return result


class _Machine:
    """The stack, the stacks below each mark, and the memo, a dict so that a large index allocates nothing."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.outer_stacks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def push(self, argument: Any) -> None:
        self.stack.append(argument)

    def mark(self, argument: None) -> None:
        self.outer_stacks.append(self.stack)
        self.stack = []

    def pop_mark(self) -> list[Any]:
        values, self.stack = self.stack, self.outer_stacks.pop()
        return values

    # containers at a mark

    def marked_tuple(self, argument: None) -> None:
        self.push(tuple(self.pop_mark()))

    def marked_list(self, argument: None) -> None:
        self.push(self.pop_mark())

    def marked_dict(self, argument: None) -> None:
        values = self.pop_mark()
        self.push({})
        self._set(values)

    # containers

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
            target[_check_key(key)] = value

    # memo

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def memoize(self, argument: None) -> None:
        self.put(len(self.memo))

    def get(self, index: int) -> None:
        self.push(self.memo[index])

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
    """Return the value if its type is exactly ``kind``; otherwise raise TypeError."""
    if type(value) is not kind:
        raise TypeError
    return value


def _check_key(value: Any) -> Any:
    """Return a dict key if hashing it is cheap and cannot be made to collide; otherwise raise TypeError."""
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
    """Skip PROTO and FRAME, which matter only when reading from a stream."""


def _table(steps: dict[str, Callable[[_Machine, Any], None]]) -> dict[int, Callable[[_Machine, Any], None]]:
    """Map each opcode to its step; a key lists all opcodes that share a step."""
    return {ord(opcode): step for opcodes, step in steps.items() for opcode in opcodes}


#: The step for each opcode. An opcode without a step pushes its argument.
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
