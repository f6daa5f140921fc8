"""Measure how fast this package, 0.1.2, other packages and Django alone send and deliver mail.

Run it in any directory: ``python benchmarks/run.py``. It creates its own virtual environments, runs each contender in
turn, prints the medians and our promises as tables in Markdown, and exits with 1 if a promise is missed.
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
    """Create the environments, measure, and print the results."""
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
    """Parse the command line."""
    names = [*COUNTS, *(scenario.name for scenario in SCENARIOS)]
    parser = ArgumentParser(description="Measure how fast queued mail is sent and delivered.")
    parser.add_argument(
        "--messages", type=int, metavar="N", help="number of messages in each scenario, instead of its default"
    )
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="number of rounds to take the median of (3)")
    parser.add_argument("--only", "--scenario", nargs="+", choices=names, default=names, help="measure only these")
    parser.add_argument("--environments", type=Path, default=HERE / ".environments", metavar="DIRECTORY")
    return parser.parse_args()


def make_environments(scenarios: list[Scenario], directory: Path) -> None:
    """Create the environments of all contenders, and always our own, which the counts need."""
    contenders = [OURS_ON_SQLITE, *(contender for scenario in scenarios for contender in scenario.contenders)]
    for name, environment in {contender.environment.name: contender.environment for contender in contenders}.items():
        say(f"Creating the environment {name}")
        environment.make(directory)


def measure(scenarios: list[Scenario], options: Namespace) -> Medians:
    """Run the contenders in turn, so that other load on the machine affects all of them alike."""
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
                    say(f"{row}: skipped: {missing}")
                else:
                    say(f"{row}: {rate:.0f}/s")
                    found[scenario.name][contender.name].append(rate)
    return {
        scenario: {contender: median(rates) for contender, rates in by_contender.items()}
        for scenario, by_contender in found.items()
    }


def judge(scenarios: list[Scenario], medians: Medians) -> list[Verdict]:
    """Compare the medians with the promises."""
    return [
        promise.verdict(scenario.title, medians[scenario.name])
        for scenario in scenarios
        for promise in scenario.promises
    ]


def say(text: str) -> None:
    """Print progress to stderr, because stdout is for the results."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
