"""The results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Iterator

from promises import Verdict
from scenarios import Scenario

#: Messages per second, keyed by the names of scenario and contender.
Medians = dict[str, dict[str, float]]


def rates(scenarios: list[Scenario], medians: Medians) -> Iterator[str]:
    """Yield the lines of a table of rates: a row per contender, a column per scenario."""
    yield row("messages per second", *(scenario.title for scenario in scenarios))
    yield row("---", *("---:" for _ in scenarios))
    for name in dict.fromkeys(contender.name for scenario in scenarios for contender in scenario.contenders):
        found = [medians[scenario.name].get(name) for scenario in scenarios]
        yield row(name, *("" if rate is None else f"{rate:.0f}" for rate in found))


def promises(verdicts: list[Verdict]) -> Iterator[str]:
    """Yield the lines of a table of promises."""
    yield row("promise", "measured", "must be", "")
    yield row("---", "---:", "---:", "---")
    for verdict in verdicts:
        result = {True: "kept", False: "**missed**", None: "not measured"}[verdict.kept]
        yield row(verdict.promise, verdict.measured, verdict.target, result)


def row(*cells: str) -> str:
    """Return one row of a table."""
    return f"| {' | '.join(cells)} |"
