"""Log each trouble once, so that a loop does not repeat the same line in every run."""

from __future__ import annotations

import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass

from ..logs import get_logger
from .words import count, duration

logger = get_logger("delivery")

#: Seconds after which a trouble that lasts is logged again.
INTERVAL = 600


@dataclass
class _Trouble:
    """One trouble that lasts."""

    #: When it was reported first and last, and when it was logged last, on monotonic().
    first_at: float
    last_at: float
    logged_at: float
    #: The text to log when it is over; "": none.
    over: str
    log: Callable[[str], object]
    #: Number of runs that reported it.
    runs: int = 1
    #: Whether the current run has reported it.
    is_current: bool = True


class Troubles:
    """The troubles of one command, over all its runs.

    Several workers may report at once: at worst, a line is logged twice.
    """

    def __init__(self) -> None:
        self._known: dict[Hashable, _Trouble] = {}

    def report(self, key: Hashable, text: str, over: str = "", log: Callable[[str], object] = logger.warning) -> None:
        """Log a trouble, unless it was logged within INTERVAL. ``over``: the text to log after a run without it."""
        now = time.monotonic()
        known = self._known.get(key)
        if known is None:
            self._known[key] = _Trouble(now, now, now, over, log)
            log(text)
            return
        known.runs += not known.is_current
        known.is_current, known.last_at = True, now
        if now - known.logged_at >= INTERVAL:
            known.logged_at = now
            log(f"{text} (in {count(known.runs, 'run')}, for {duration(now - known.first_at)})")

    def end_run(self) -> None:
        """Log the ends of troubles that this run has not reported, and remove them."""
        for key, trouble in list(self._known.items()):
            if not trouble.is_current and (trouble.over or time.monotonic() - trouble.last_at >= INTERVAL):
                del self._known[key]
                if trouble.over:
                    trouble.log(trouble.over)
            trouble.is_current = False
