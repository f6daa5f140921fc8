"""Split a pickle into its opcodes in a single pass, without executing them.

Lib/pickletools.py in the standard library documents the opcodes. The tables below omit those that stock messages do
not need: EXT, PERSID, sets, buffers, big integers, and the opcodes that duplicate or drop the top of the stack.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from struct import Struct, error
from typing import Any

from ...errors import Unreadable

#: Maximum size of an unsigned payload, in bytes: more than mail servers accept.
SIZE_LIMIT = 64 * 2**20
#: Maximum number of opcodes. A stock message has a few hundred, plus two or three per recipient. Running this many
#: takes at most about 25 ms.
OPCODE_LIMIT = 12_000
#: The highest protocol of pickle.
PROTOCOL_LIMIT = 5
#: Maximum length of a number written as text, in digits.
DIGITS_LIMIT = 400

#: Takes the pickle and a position; returns the argument there and the position of the next opcode.
Reader = Callable[[bytes, int], tuple[Any, int]]

#: The spelling of booleans in protocol 0.
_BOOLEANS = {b"00": False, b"01": True}
#: A backslash sequence that Python 2's repr() never writes.
_INVALID_ESCAPE = re.compile(rb"""\\(?!['"nrt]|x[0-9a-fA-F]{2})""")


class ByteString(bytes):
    """A str of Python 2, which may be text or binary data."""


def written_by_python2(pickled: bytes) -> bool:
    """Return whether Python 2 wrote this pickle: 0.1.2 used protocol 0 there, and 3 or later on Python 3."""
    return pickled[:1] != b"\x80" or pickled[1:2] < b"\x03"


def scan(pickled: bytes) -> list[tuple[int, Any]]:
    """Return all opcodes before STOP with their arguments. Raises Unreadable at the first that is not supported."""
    if len(pickled) > SIZE_LIMIT:
        raise Unreadable(f"the payload is larger than {SIZE_LIMIT} bytes")
    readers = _PYTHON2 if written_by_python2(pickled) else _PYTHON3
    opcodes: list[tuple[int, Any]] = []
    position = 0
    try:
        while (opcode := pickled[position]) != STOP:
            read = readers[opcode]
            argument, position = read(pickled, position + 1) if read else (None, position + 1)
            opcodes.append((opcode, argument))
            if len(opcodes) > OPCODE_LIMIT:
                raise Unreadable(f"the payload has more than {OPCODE_LIMIT} opcodes")
    except (IndexError, KeyError):
        raise Unreadable(f"the payload is cut off, or holds more than plain data, at byte {position}") from None
    except (ValueError, error):
        raise Unreadable(f"the payload is damaged at byte {position}") from None
    if position != len(pickled) - 1:
        raise Unreadable(f"the payload continues after its STOP opcode at byte {position}")
    return opcodes


def _number(layout: str) -> Reader:
    number = Struct(layout)
    return lambda pickled, position: (number.unpack_from(pickled, position)[0], position + number.size)


def _counted(layout: str, decode: Callable[[bytes], Any]) -> Reader:
    """Return a reader of length-prefixed data; after data that is cut short, scan() finds no further opcode."""
    read_size = _number(layout)

    def read(pickled: bytes, position: int) -> tuple[Any, int]:
        size, start = read_size(pickled, position)
        return decode(pickled[start : start + size]), start + size

    return read


def _line(decode: Callable[[bytes], Any]) -> Reader:
    """Return a reader of data that ends with a newline."""

    def read(pickled: bytes, position: int) -> tuple[Any, int]:
        end = pickled.index(b"\n", position)
        return decode(pickled[position:end]), end + 1

    return read


def _name(pickled: bytes, position: int) -> tuple[tuple[str, str], int]:
    """Read the name of a module and the name of a global in it, each on its own line."""
    middle = pickled.index(b"\n", position)
    end = pickled.index(b"\n", middle + 1)
    return (_utf8(pickled[position:middle]), _utf8(pickled[middle + 1 : end])), end + 1


def _utf8(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _raw_unicode(data: bytes) -> str:
    return str(data, "raw-unicode-escape")


def _quoted(data: bytes) -> ByteString:
    """Decode Python 2's repr() of a str."""
    quote = data[:1]
    if quote not in (b"'", b'"') or len(data) < 2 or not data.endswith(quote):
        raise ValueError
    if _INVALID_ESCAPE.search(data.replace(rb"\\", b"")):
        raise ValueError
    return ByteString(codecs.escape_decode(data[1:-1])[0])


def _protocol(pickled: bytes, position: int) -> tuple[int, int]:
    """Read the number of a protocol; raises ValueError if no Python knows it."""
    if pickled[position] > PROTOCOL_LIMIT:
        raise ValueError
    return pickled[position], position + 1


def _check_digits(data: bytes) -> bytes:
    if len(data) > DIGITS_LIMIT:
        raise ValueError
    return data


def _integer(data: bytes) -> int:
    return _BOOLEANS[data] if data in _BOOLEANS else int(_check_digits(data))


def _long(data: bytes) -> int:
    return int(_check_digits(data).removesuffix(b"L"))


def _little_endian(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _table(readers: dict[str, Reader | None]) -> dict[int, Reader | None]:
    """Map each opcode to its reader, or to None if it has no argument; a key lists all opcodes that share a reader."""
    return {ord(opcode): reader for opcodes, reader in readers.items() for opcode in opcodes}


STOP = ord(".")
_PYTHON3 = _table(
    {
        "(Nab}esu])tR\x81\x85\x86\x87\x88\x89\x93\x94": None,
        "\x80": _protocol,
        "\x95": _number("<Q"),
        "Khq": _number("<B"),
        "M": _number("<H"),
        "J": _number("<i"),
        "jr": _number("<I"),
        "G": _number(">d"),
        "\x8a": _counted("<B", _little_endian),
        "\x8c": _counted("<B", _utf8),
        "X": _counted("<I", _utf8),
        "\x8d": _counted("<Q", _utf8),
        "C": _counted("<B", bytes),
        "B": _counted("<I", bytes),
        "\x8e": _counted("<Q", bytes),
        "c": _name,
    }
)
_PYTHON2 = _PYTHON3 | _table(
    {
        "dlo": None,
        "I": _line(_integer),
        "L": _line(_long),
        "F": _line(lambda data: float(_check_digits(data))),
        "S": _line(_quoted),
        "U": _counted("<B", ByteString),
        "T": _counted("<I", ByteString),
        "V": _line(_raw_unicode),
        "i": _name,
        "gp": _line(lambda data: int(_check_digits(data))),
    }
)
