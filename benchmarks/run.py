"""How fast queued mail is delivered: this package, 0.1.2, django-post_office, django-mailer and Django without a queue.

Run it from anywhere: ``python benchmarks/run.py --messages 1000``. It makes its own virtual environments, lets
each contender deliver in turn, and prints the medians and the ratios that we promise. It fails when one is missed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from argparse import ArgumentParser, Namespace
from collections import defaultdict
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from contenders import CONTENDERS, Contender
from needs import Missing
from scenarios import SCENARIOS, Scenario
from table import Medians, kept, rows

HERE = Path(__file__).resolve().parent


def main() -> int:
    """Make the environments, measure, print."""
    options = parse()
    scenarios = [scenario for scenario in SCENARIOS if scenario.name in options.scenario]
    for contender in CONTENDERS:
        say(f"Making the environment {contender.environment.name}")
        contender.environment.make(options.environments)
    medians = measure(scenarios, options)
    print(*rows(scenarios, medians), "", sep="\n")
    promises = [kept(scenario, promise, medians) for scenario in scenarios for promise in scenario.promises]
    print(*(text for text, _ in promises), sep="\n")
    return 0 if all(kept for _, kept in promises) else 1


def parse() -> Namespace:
    """Read the command line."""
    names = [scenario.name for scenario in SCENARIOS]
    parser = ArgumentParser(description="Measure how fast queued mail is delivered.")
    parser.add_argument("--messages", type=int, default=1000, metavar="N", help="messages to deliver (1000)")
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="rounds of which to take the median (3)")
    parser.add_argument("--scenario", nargs="+", choices=names, default=names, help="only these")
    parser.add_argument("--environments", type=Path, default=HERE / ".environments", metavar="DIRECTORY")
    return parser.parse_args()


def measure(scenarios: list[Scenario], options: Namespace) -> Medians:
    """Let everybody deliver in turn, so that whatever else the machine does falls on all alike."""
    rates: dict[tuple[str, str], list[float]] = defaultdict(list)
    for number in range(1, options.rounds + 1):
        for scenario in scenarios:
            for contender in CONTENDERS:
                row = f"round {number}, {scenario.title}: {contender.name}"
                try:
                    found = options.messages / deliver(scenario, contender, options)
                except Missing as missing:
                    say(f"{row}: left out: {missing}")
                else:
                    say(f"{row}: {found:.0f}/s")
                    rates[scenario.name, contender.name].append(found)
    return {key: median(found) for key, found in rates.items()}


def deliver(scenario: Scenario, contender: Contender, options: Namespace) -> float:
    """Give the seconds that one delivery of all messages takes. Raises Missing."""
    with TemporaryDirectory(prefix="mailqueue-benchmark-") as name, scenario.server(Path(name)) as server:
        settings = {**contender.settings_in(Path(name)), **scenario.settings}
        settings |= {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": server.port}
        task = {"settings": settings, "command": contender.command, "messages": options.messages}
        answer = subprocess.run(
            [contender.environment.python(options.environments), HERE / "deliver.py"],
            input=json.dumps(task),
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            cwd=name,
            env={**os.environ, **contender.environment.variables, **server.variables, "TMPDIR": name},
        )
        if (received := server.received()) != options.messages:
            raise AssertionError(f"{contender.name} delivered {received} of {options.messages} messages")
    return float(answer.stdout)


def say(text: str) -> None:
    """Tell how far it is; the results alone go to stdout."""
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
