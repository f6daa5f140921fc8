"""The figures of queues as one line of a Nagios plugin, with its exit status.

https://nagios-plugins.org/doc/guidelines.html
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

from .figures import Figures
from .text import printable

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_WORDS = ("OK", "WARNING", "CRITICAL", "UNKNOWN")


class Limits(NamedTuple):
    """The values from which on there is an alarm; None: never."""

    warn_age: float | None = 600
    crit_age: float | None = 3600
    warn_dead: int | None = 1
    crit_dead: int | None = None


def alarm(figures: Sequence[Figures], limits: Limits) -> tuple[int, str]:
    """Return the exit status and the line: the oldest of all queues, the sums, and the figures of each as perfdata."""
    now = time.time()
    age, name = max((_age(each, now) or 0, each.queue) for each in figures)
    due, dead, waiting = (sum(getattr(each.counts, state) for each in figures) for state in ("due", "dead", "waiting"))
    status = max(
        _status(age if waiting else None, limits.warn_age, limits.crit_age),
        _status(dead, limits.warn_dead, limits.crit_dead),
    )
    oldest = "how long they wait is not known"
    if any(each.oldest is not None for each in figures):
        oldest = f"oldest in {name} waits {age:.0f} s"
    elif not waiting:
        oldest = "no message waits"
    paused = "".join(f"; {each.queue} is paused" for each in figures if each.paused is not None)
    text = _one_line(f"{oldest}; {due} due, {dead} dead{paused}")
    return status, f"MAIL {_WORDS[status]} - {text} | {' '.join(_perfdata(each, limits, now) for each in figures)}"


def unknown(error: object) -> tuple[int, str]:
    """Return the exit status and the line for a queue that cannot be asked."""
    return UNKNOWN, f"MAIL UNKNOWN - {_one_line(str(error))}"


def _status(value: float | None, warn: float | None, crit: float | None) -> int:
    if value is None:
        return OK
    if crit is not None and value >= crit:
        return CRITICAL
    return WARNING if warn is not None and value >= warn else OK


def _age(figures: Figures, now: float) -> float | None:
    """Return the age of the oldest waiting message in seconds; None if it is unknown."""
    if figures.oldest is not None:
        return max(now - figures.oldest, 0)
    return None if figures.counts.waiting else 0


def _perfdata(figures: Figures, limits: Limits, now: float) -> str:
    age = _age(figures, now)
    limits_of_age = f"{_number(limits.warn_age)};{_number(limits.crit_age)};0"
    value = "U" if age is None else f"{age:.0f}s"
    return (
        f"{_label(figures.queue, 'age')}={value};{limits_of_age} "
        f"{_label(figures.queue, 'waiting')}={figures.counts.waiting};;;0"
    )


def _label(queue: str, what: str) -> str:
    """Quote a label that needs it; no label may contain an equals sign."""
    label = _one_line(f"{queue}_{what}").replace("=", "_")
    return "'" + label.replace("'", "''") + "'" if {" ", "'"} & set(label) else label


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:g}"


def _one_line(text: str) -> str:
    return printable(text).replace("|", "/")
