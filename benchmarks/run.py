"""Measure how fast queued mail is sent and delivered by this package, 0.1.2, other packages, and Django alone.

Run it from anywhere: ``python benchmarks/run.py``. It makes its own virtual environments, lets each contender have
its turn, prints the medians and what we promise as tables in Markdown, and exits with 1 when a promise is missed.
"""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from pathlib import Path
from statistics import median

from contenders import OURS_ON_SQLITE
from counts import COUNTS
from needs import Missing
from promises import Verdict
from scenarios import SCENARIOS, Scenario
from table import Medians, promises, rates
from turns import Turn

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Make the environments, measure, print."""
    options = parse()
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.only]
    make_environments(scenarios, options.environments)
    verdicts = [
        verdict for name, count in COUNTS.items() if name in options.only for verdict in count(options.environments)
    ]
    medians = measure(scenarios, options)
    verdicts += judge(scenarios, medians)
    if scenarios:
        print(*rates(scenarios, medians), "", sep="\n")
    print(*promises(verdicts), sep="\n")
    return 1 if any(verdict.kept is False for verdict in verdicts) else 0


def parse() -> Namespace:
    """Read the command line."""
    names = [*COUNTS, *(scenario.name for scenario in SCENARIOS)]
    parser = ArgumentParser(description="Measure how fast queued mail is sent and delivered.")
    parser.add_argument(
        "--messages", type=int, metavar="N", help="messages of each scenario, instead of its own number"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of which to take the median (3)")
    parser.add_argument("--only", "--scenario", nargs="+", choices=names, default=names, help="measure only these")
    parser.add_argument("--environments", type=Path, default=HERE / ".environments", metavar="DIRECTORY")
    return parser.parse_args()


def make_environments(scenarios: list[Scenario], directory: Path) -> None:
    """Make the environments of all contenders; the counts need ours."""
    contenders = [OURS_ON_SQLITE, *(contender for scenario in scenarios for contender in scenario.contenders)]
    for name, environment in {contender.environment.name: contender.environment for contender in contenders}.items():
        say(f"Making the environment {name}")
        environment.make(directory)


def measure(scenarios: list[Scenario], options: Namespace) -> Medians:
    """Let the contenders take turns, so that the machine's other load falls on all alike."""
    found: dict[str, dict[str, list[float]]] = {scenario.name: defaultdict(list) for scenario in scenarios}
    for number in range(1, options.rounds + 1):
        for scenario in scenarios:
            for contender in scenario.contenders:
                row = f"round {number}, {scenario.title}: {contender.name}"
                messages = scenario.messages_for(contender, options.messages)
                turn = Turn(contender, scenario.server, messages, scenario.measure, scenario.settings)
                try:
                    rate = turn.run(options.environments)["rate"]
                except Missing as missing:
                    say(f"{row}: left out: {missing}")
                else:
                    say(f"{row}: {rate:.0f}/s")
                    found[scenario.name][contender.name].append(rate)
    return {
        scenario: {contender: median(rates) for contender, rates in by_contender.items()}
        for scenario, by_contender in found.items()
    }


def judge(scenarios: list[Scenario], medians: Medians) -> list[Verdict]:
    """Compare the medians with what we promise."""
    return [
        promise.verdict(scenario.title, medians[scenario.name])
        for scenario in scenarios
        for promise in scenario.promises
    ]


def say(text: str) -> None:
    """Report progress on stderr; only the results go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
