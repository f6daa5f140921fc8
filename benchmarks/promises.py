"""Promises about speed, and the comparison of a measurement with them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from contenders import Contender


class Verdict(NamedTuple):
    """One row of the table of promises."""

    promise: str
    measured: str
    target: str
    #: None if not measured.
    kept: bool | None


class Promise(NamedTuple):
    """The promise that ``ours`` is at least ``ratio`` times as fast as the fastest of ``others``."""

    ours: Contender
    others: list[Contender]
    ratio: float

    def verdict(self, title: str, rates: Mapping[str, float]) -> Verdict:
        """Compare the rates of a scenario, keyed by contenders' names. A missing rate breaks no promise."""
        text = f"{title}: {self.ours.name} / {' or '.join(other.name for other in self.others)}"
        target = f"at least {self.ratio}"
        if missing := [name for name in self._names() if name not in rates]:
            return Verdict(text, f"no rate of {' and '.join(missing)}", target, None)
        ratio = rates[self.ours.name] / max(rates[other.name] for other in self.others)
        return Verdict(text, f"{ratio:.2f}", target, ratio >= self.ratio)

    def _names(self) -> list[str]:
        return [contender.name for contender in [self.ours, *self.others]]
