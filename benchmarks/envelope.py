"""Measure what the envelope costs: ``dumps`` and ``loads`` compared with plain pickle, in microseconds per message.

Run it from the root of the repository: ``python benchmarks/envelope.py``. It exits with 1 if the promise is missed.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from time import perf_counter
from typing import Any

from django.conf import settings

sys.path.insert(0, str(Path(__file__).parents[1]))
settings.configure(SECRET_KEY="a key for the benchmark, of the length that Django recommends")

from django.core.mail import EmailMessage  # noqa: E402

from mailqueue_backend.envelope import Envelope, dumps, loads  # noqa: E402

#: The pickle protocol and our key in the stored format, which is fixed.
PROTOCOL, META_KEY = 4, "mailqueue"
#: Microseconds that dumps and loads together may take more than pickle's.
PROMISE = 40
#: Measurements of each function, and calls in each measurement.
ROUNDS, CALLS = 200, 100


def microseconds(call: Callable[[], Any]) -> float:
    """Return the mean duration of a call."""
    start = perf_counter()
    for _ in range(CALLS):
        call()
    return (perf_counter() - start) / CALLS * 1e6


def main() -> int:
    created = datetime.now()
    headers = {"Message-ID": "<1@example.com>", "Date": "Tue, 24 Nov 2026 04:00:00 -0000"}
    message = EmailMessage(
        "Subject", "A body of some lines.\n" * 40, "a@example.com", ["b@example.com"], headers=headers
    )
    envelope = Envelope(message, created, {META_KEY: {"created": created, "created_epoch": created.timestamp()}})
    content = {"email": message, "created": created, **envelope.extra}
    pickled, payload = pickle.dumps(content, PROTOCOL), dumps(envelope)
    calls: dict[str, Callable[[], Any]] = {
        "pickle.dumps": lambda: pickle.dumps(content, PROTOCOL),
        "envelope.dumps": lambda: dumps(envelope),
        "pickle.loads": lambda: pickle.loads(pickled),
        "envelope.loads": lambda: loads(payload),
    }
    # Take turns, so that other load on the machine affects all of them alike.
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            times[name].append(microseconds(call))
    # The minimum is the cost; anything above it is other load on the machine.
    least = {name: min(values) for name, values in times.items()}
    for name, value in least.items():
        print(f"{name:15} {value:6.1f} µs")
    above = least["envelope.dumps"] - least["pickle.dumps"] + least["envelope.loads"] - least["pickle.loads"]
    print(f"above pickle    {above:6.1f} µs (promised: at most {PROMISE}), {len(payload)} bytes")
    return 0 if above <= PROMISE else 1


if __name__ == "__main__":
    sys.exit(main())
