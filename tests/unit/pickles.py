"""Pickles assembled from opcodes: no pickler writes them, but an attacker could."""

from __future__ import annotations

from mailqueue_backend.envelope.legacy.machine import Name

PYTHON3 = b"\x80\x03"
NONE, STOP, MARK = b"N", b".", b"("
EMPTY_TUPLE, EMPTY_LIST, EMPTY_DICT = b")", b"]", b"}"
#: A naive datetime of 2026.
CREATED = b"cdatetime\ndatetime\nC\x0a\x07\xea\x0b\x17\x14\x1f\x21\x07\xc9k\x85R"
MESSAGE = Name("django.core.mail.message", "EmailMessage")


def text(value: str) -> bytes:
    data = value.encode()
    return b"X" + len(data).to_bytes(4, "little") + data


def data(value: bytes) -> bytes:
    return b"B" + len(value).to_bytes(4, "little") + value


def name(module: str, qualified: str) -> bytes:
    return f"c{module}\n{qualified}\n".encode()


def dotted(module: str, qualified: str) -> bytes:
    """Name an object by the opcode of protocol 4, which resolves dotted names."""
    return text(module) + text(qualified) + b"\x93"


def mapping(**items: bytes) -> bytes:
    return EMPTY_DICT + MARK + b"".join(text(key) + value for key, value in items.items()) + b"u"


def sequence(*items: bytes) -> bytes:
    return EMPTY_LIST + MARK + b"".join(items) + b"e"


def members(*items: bytes) -> bytes:
    return MARK + b"".join(items) + b"t"


def called(maker: bytes, *arguments: bytes) -> bytes:
    return maker + members(*arguments) + b"R"


def built(maker: bytes, **state: bytes) -> bytes:
    return maker + EMPTY_TUPLE + b"\x81" + mapping(**state) + b"b"


def message(maker: bytes = name(*MESSAGE), **attributes: bytes) -> bytes:
    """Return the opcodes of a message; each of ``attributes`` is opcodes that push its value."""
    stock = {"subject": text("S"), "body": text("B"), "from_email": text("a@example.com")}
    return built(maker, **{**stock, "to": sequence(text("b@example.com")), **attributes})


def payload(email: bytes = message(), created: bytes = CREATED, head: bytes = PYTHON3, **extra: bytes) -> bytes:
    """Return a pickle of 0.1.2's dict; each of ``extra`` is opcodes that push its value."""
    return head + mapping(email=email, created=created, **extra) + STOP


def with_body(body: bytes) -> bytes:
    """Return a pickle of 0.1.2's dict whose message has this body, given as opcodes."""
    return payload(message(body=body))
