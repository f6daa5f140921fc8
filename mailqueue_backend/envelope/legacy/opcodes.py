"""A pickle taken apart into its opcodes, in one pass from front to back, without executing any.

What an opcode means is in the standard library's Lib/pickletools.py. An opcode that stock messages do not need is
not in the tables below: EXT, PERSID, sets, buffers, big integers, what repeats or drops a value on the stack.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable
from struct import Struct, error
from typing import Any

from ...errors import Unreadable

#: A payload beyond this many bytes is set aside: more than mail servers take.
SIZE_LIMIT = 64 * 2**20
#: Stock messages have a few hundred, and two or three more for each recipient. So many take some 25 ms at worst.
OPCODE_LIMIT = 12_000
#: Digits of a number written as text.
DIGITS_LIMIT = 400

#: Reads an argument: gives it, and where the next opcode stands.
Reader = Callable[[bytes, int], tuple[Any, int]]

#: How protocol 0 writes them.
_BOOLEANS = {b"00": False, b"01": True}
#: What Python 2's repr() does not write.
_WRONG_ESCAPE = re.compile(rb"""\\(?!['"nrt]|x[0-9a-fA-F]{2})""")


class ByteString(bytes):
    """A str of Python 2: text, or binary data, who knows."""


def written_by_python2(pickled: bytes) -> bool:
    """Tell whether Python 2 wrote this pickle: 0.1.2 used protocol 0 there, and 3 or later on Python 3."""
    return pickled[:1] != b"\x80" or pickled[1:2] < b"\x03"


def scan(pickled: bytes) -> list[tuple[int, Any]]:
    """Give all opcodes up to STOP with their arguments; raise Unreadable at the first that has no place here."""
    if len(pickled) > SIZE_LIMIT:
        raise Unreadable(f"it is larger than {SIZE_LIMIT} bytes")
    readers = _PYTHON2 if written_by_python2(pickled) else _PYTHON3
    found: list[tuple[int, Any]] = []
    position = 0
    try:
        while (opcode := pickled[position]) != STOP:
            read = readers[opcode]
            argument, position = read(pickled, position + 1) if read else (None, position + 1)
            found.append((opcode, argument))
            if len(found) > OPCODE_LIMIT:
                raise Unreadable(f"it has more than {OPCODE_LIMIT} opcodes")
    except (IndexError, KeyError):
        raise Unreadable(f"it is more than data, or cut off, at byte {position}") from None
    except (ValueError, error):
        raise Unreadable(f"it is damaged at byte {position}") from None
    if position != len(pickled) - 1:
        raise Unreadable(f"it goes on after its end at byte {position}")
    return found


def _number(layout: str) -> Reader:
    number = Struct(layout)
    return lambda pickled, position: (number.unpack_from(pickled, position)[0], position + number.size)


def _counted(layout: str, decode: Callable[[bytes], Any]) -> Reader:
    """Read so many bytes as the number before them says; if there are fewer, no opcode stands behind them."""
    count = _number(layout)

    def read(pickled: bytes, position: int) -> tuple[Any, int]:
        size, start = count(pickled, position)
        return decode(pickled[start : start + size]), start + size

    return read


def _line(decode: Callable[[bytes], Any]) -> Reader:
    """Read up to the end of the line."""

    def read(pickled: bytes, position: int) -> tuple[Any, int]:
        end = pickled.index(b"\n", position)
        return decode(pickled[position:end]), end + 1

    return read


def _name(pickled: bytes, position: int) -> tuple[tuple[str, str], int]:
    """Read a module's line and a name's line."""
    middle = pickled.index(b"\n", position)
    end = pickled.index(b"\n", middle + 1)
    return (_utf8(pickled[position:middle]), _utf8(pickled[middle + 1 : end])), end + 1


def _utf8(data: bytes) -> str:
    return str(data, "utf-8", "surrogatepass")


def _raw_unicode(data: bytes) -> str:
    return str(data, "raw-unicode-escape")


def _quoted(data: bytes) -> ByteString:
    """Read Python 2's repr() of a str."""
    quote = data[:1]
    if quote not in (b"'", b'"') or len(data) < 2 or not data.endswith(quote):
        raise ValueError
    if _WRONG_ESCAPE.search(data.replace(rb"\\", b"")):
        raise ValueError
    return ByteString(codecs.escape_decode(data[1:-1])[0])


def _short(data: bytes) -> bytes:
    if len(data) > DIGITS_LIMIT:
        raise ValueError
    return data


def _integer(data: bytes) -> int:
    return _BOOLEANS[data] if data in _BOOLEANS else int(_short(data))


def _long(data: bytes) -> int:
    return int(_short(data).removesuffix(b"L"))


def _little_endian(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _table(readers: dict[str, Reader | None]) -> dict[int, Reader | None]:
    """Give each of the opcodes that stand together in a key its reader; None: it has no argument."""
    return {ord(opcode): reader for opcodes, reader in readers.items() for opcode in opcodes}


STOP = ord(".")
_PYTHON3 = _table(
    {
        "(Nab}esu])tR\x81\x85\x86\x87\x88\x89\x93\x94": None,
        "\x80": _number("<B"),
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
        "F": _line(lambda data: float(_short(data))),
        "S": _line(_quoted),
        "U": _counted("<B", ByteString),
        "T": _counted("<I", ByteString),
        "V": _line(_raw_unicode),
        "i": _name,
        "gp": _line(lambda data: int(_short(data))),
    }
)
