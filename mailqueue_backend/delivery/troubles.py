"""What goes wrong, said once: a loop must not repeat a line in each run."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ..logs import get_logger
from .words import count, duration

logger = get_logger("delivery")

#: Seconds after which a trouble that lasts is said again.
INTERVAL = 600


@dataclass
class _Trouble:
    """One trouble that lasts."""

    #: On monotonic(): when it was met first and last, and when it was logged last.
    since: float
    met_at: float
    said_at: float
    #: What is said when it is over; "": nothing.
    over: str
    say: Callable[[str], object]
    #: Runs in which it was met.
    runs: int = 1
    #: Whether it was met in the current run.
    is_here: bool = True


class Troubles:
    """The troubles of one command, over all its runs. For one thread at a time."""

    def __init__(self) -> None:
        self._known: dict[Hashable, _Trouble] = {}

    def report(self, key: Hashable, text: str, over: str = "", say: Callable[[str], object] = logger.warning) -> None:
        """Say what is wrong, unless it was said in the last ten minutes; say ``over`` after a run without it."""
        now = time.monotonic()
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Trouble(now, now, now, over, say)
            say(text)
            return
        known.runs += not known.is_here
        known.is_here, known.met_at = True, now
        if now - known.said_at >= INTERVAL:
            known.said_at = now
            say(f"{text} (in {count(known.runs, 'run')}, for {duration(now - known.since)})")

    def end_run(self) -> None:
        """Say which troubles are over, and forget them."""
        for key, trouble in list(self._known.items()):
            if not trouble.is_here and (trouble.over or time.monotonic() - trouble.met_at >= INTERVAL):
                del self._known[key]
                if trouble.over:
                    trouble.say(trouble.over)
            trouble.is_here = False
