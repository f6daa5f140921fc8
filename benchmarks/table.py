"""The results as a table, and whether they keep what we promise."""

from __future__ import annotations

from collections.abc import Iterator

from contenders import CONTENDERS
from scenarios import Promise, Scenario

#: Messages per second, by the names of scenario and contender.
Medians = dict[tuple[str, str], float]


def rows(scenarios: list[Scenario], medians: Medians) -> Iterator[str]:
    """Give a table in Markdown."""
    yield row("messages per second", *(scenario.title for scenario in scenarios))
    yield row("---", *("---:" for _ in scenarios))
    for contender in CONTENDERS:
        found = [medians.get((scenario.name, contender.name)) for scenario in scenarios]
        yield row(contender.name, *("" if rate is None else f"{rate:.0f}" for rate in found))


def row(*cells: str) -> str:
    """Give one row."""
    return f"| {' | '.join(cells)} |"


def kept(scenario: Scenario, promise: Promise, medians: Medians) -> tuple[str, bool]:
    """Tell a ratio, and whether it is what we promise; what was left out breaks no promise."""
    text = f"{scenario.title}: {promise.ours.name} / {promise.other.name}"
    try:
        ours, other = (medians[scenario.name, contender.name] for contender in (promise.ours, promise.other))
    except KeyError:
        return f"{text}: not measured", True
    ratio = ours / other
    return f"{text}: {ratio:.2f} (promised: {promise.ratio})", ratio >= promise.ratio
