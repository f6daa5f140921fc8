"""Open randomly damaged payloads, and payloads of random opcodes, and check the results.

``python -m tests.unit.fuzz 100000 [seed]`` opens 100,000 payloads. Each must raise Unreadable or contain a message of
plain data, take less than 50 ms of processor time, and change no class. The process may use 200 MB more than at the
start.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from time import process_time

import django
from django.conf import settings

from tests import PAYLOADS

#: Seconds of processor time that one payload may take.
TIME_LIMIT = 0.05
#: Bytes that the process may use in addition to those in use at the start.
MEMORY_LIMIT = 200 * 2**20

SEEDS = [path.read_bytes() for path in sorted(PAYLOADS.glob("*/*.pickle"))]

#: Opcodes without an argument, or whose argument is left to chance.
BARE = [bytes([code]) for code in b"(Nab}esu])tRdlo0123.\x81\x85\x86\x87\x88\x89\x8f\x90\x91\x92\x93\x94\x97\x98QP"]
NAMES = [
    (b"django.core.mail.message", b"EmailMessage"),
    (b"django.core.mail.message", b"EmailAttachment"),
    (b"django.utils.functional", b"_lazy_proxy_unpickle"),
    (b"django.utils.translation", b"gettext"),
    (b"django.utils.translation", b"ngettext"),
    (b"django.utils.safestring", b"SafeText"),
    (b"django.utils.text", b"_format_lazy"),
    (b"email.mime.text", b"MIMEText"),
    (b"email.mime.multipart", b"MIMEMultipart"),
    (b"email.charset", b"Charset"),
    (b"email.header", b"Header"),
    (b"email._policybase", b"Compat32"),
    (b"datetime", b"datetime"),
    (b"builtins", b"str"),
    (b"copy_reg", b"_reconstructor"),
    (b"__builtin__", b"object"),
    (b"os", b"system"),
]
WORDS = (
    b"email created mailqueue subject body from_email to cc attachments alternatives extra_headers encoding message "
    b"_headers _payload _charset policy input_charset body_encoding _chunks text/plain message/rfc822 x true"
).split()


def number(random: Random) -> int:
    return random.choice((0, 1, 2, 3, 7, 127, 255, 256, 65535, 2**31 - 1, 2**31, 2**32 - 1, random.getrandbits(32)))


def random_opcode(random: Random) -> bytes:
    """Return a random opcode, with an argument that often fits it."""
    word = random.choice(WORDS)
    return random.choice(
        (
            lambda: random.choice(BARE),
            lambda: random.choice(BARE),
            lambda: b"X" + len(word).to_bytes(4, "little") + word,
            lambda: b"\x8c" + bytes([len(word)]) + word,
            lambda: b"C" + bytes([len(word)]) + word,
            lambda: b"S'%s'\n" % word,
            lambda: b"V%s\n" % word,
            lambda: random.choice(b"ci").to_bytes(1, "big") + b"%s\n%s\n" % random.choice(NAMES),
            lambda: random.choice(b"hqKU").to_bytes(1, "big") + bytes([random.randrange(8)]),
            lambda: random.choice(b"gpIFL").to_bytes(1, "big") + b"%d\n" % random.choice((1, 2, 3, number(random))),
            lambda: random.choice(b"rjXBTJ\x8b").to_bytes(1, "big") + number(random).to_bytes(4, "little"),
            lambda: random.choice(b"\x8d\x8e\x95\x96").to_bytes(1, "big") + number(random).to_bytes(8, "little"),
        )
    )()


def flip(payload: bytearray, random: Random) -> None:
    payload[random.randrange(len(payload))] = random.choice((random.randrange(256), *random.choice(BARE)))


def cut(payload: bytearray, random: Random) -> None:
    start = random.randrange(len(payload))
    del payload[start : start + random.randrange(1, 40)]


def repeat(payload: bytearray, random: Random) -> None:
    start = random.randrange(len(payload))
    payload[start:start] = payload[start : start + random.randrange(1, 200)] * random.choice((1, 1, 2, 300))


def insert(payload: bytearray, random: Random) -> None:
    start = random.randrange(len(payload))
    payload[start:start] = b"".join(random_opcode(random) for _ in range(random.randrange(1, 6)))


def splice(payload: bytearray, random: Random) -> None:
    other = random.choice(SEEDS)
    payload[random.randrange(len(payload)) :] = other[random.randrange(len(other)) :]


def rename(payload: bytearray, random: Random) -> None:
    word = random.choice(WORDS)
    position = payload.find(word)
    if position >= 0:
        payload[position : position + len(word)] = random.choice(WORDS)


def make_up(payload: bytearray, random: Random) -> None:
    head = random.choice((b"", b"\x80\x02", b"\x80\x03", b"\x80\x04"))
    payload[:] = head + b"".join(random_opcode(random) for _ in range(random.randrange(1, 60))) + b"."


MUTATIONS: tuple[Callable[[bytearray, Random], None], ...] = (
    *(flip, flip, flip, rename, rename),
    *(cut, repeat, insert, splice, make_up),
)


def random_payload(random: Random) -> bytes:
    payload = bytearray(random.choice(SEEDS))
    for _ in range(random.choice((1, 1, 1, 2, 3, 8))):
        random.choice(MUTATIONS)(payload, random)
        payload = payload or bytearray(b".")
    return bytes(payload)


def open_and_check(payload: bytes) -> str:
    """Open a payload and return a description of the result; raise AssertionError, with the payload, on a fault."""
    from mailqueue_backend.envelope import loads
    from mailqueue_backend.errors import Unreadable
    from tests.unit import inert

    try:
        envelope = loads(payload)
    except Unreadable as error:
        found = re.sub(r"\d+", "N", str(error))
        assert "MemoryError" not in found, f"out of memory, from {payload!r}"
        assert "RecursionError" not in found, f"too deep, from {payload!r}"
        return found
    except Exception as error:
        raise AssertionError(f"{type(error).__name__} from {payload!r}") from error
    fault = inert.find_fault(envelope)
    assert fault is None, f"{fault} from {payload!r}"
    return "a message"


def outcome(payload: bytes) -> str:
    """Open a payload within the time limit. Try up to three times, since other processes use the processor as well."""
    times = []
    while len(times) < 3:
        start = process_time()
        found = open_and_check(payload)
        times.append(process_time() - start)
        if times[-1] < TIME_LIMIT:
            return found
    raise AssertionError(f"{min(times):.3f} s for {payload!r}")


def limit_memory() -> None:
    """Limit the memory, so that a payload that needs too much raises MemoryError, which outcome() reports."""
    import resource  # not on Windows

    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + MEMORY_LIMIT
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


def main(amount: int, seed: int) -> None:
    from tests.unit import inert

    print(f"{amount} payloads, seed {seed}:", flush=True)
    random = Random(seed)
    outcome(SEEDS[0])
    before = inert.snapshot_classes()
    limit_memory()
    outcomes = Counter(outcome(random_payload(random)) for _ in range(amount))
    assert inert.snapshot_classes() == before, "a class has changed"
    for found, count in outcomes.most_common():
        print(f"{count:8} {found}")
    assert outcomes["a message"] > amount // 20, "hardly any payload could be opened: the mutations are too coarse"


if __name__ == "__main__":
    settings.configure(SECRET_KEY="only for the fuzz test")
    django.setup()
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else Random().getrandbits(32))
