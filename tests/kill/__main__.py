"""Kill drains and count the mail: ``python -m tests.kill --engine redis --messages 3000 --kills 100 --drains 3``.

Exits with 1 if a message was lost, or if more copies arrived than the kills can explain.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser

import django
from django.test.utils import setup_databases, teardown_databases


def main() -> int:
    """Run the plan given on the command line, in a test database."""
    from mailqueue_backend.delivery.feed import READY
    from tests.kill.children import ENGINES, database
    from tests.kill.harness import Plan, run

    parser = ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--engine", choices=ENGINES, required=True)
    parser.add_argument("--messages", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--drains", type=int, default=1, help="processes that drain at once")
    parser.add_argument("--workers", type=int, default=8, help="of each drain, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--old", metavar="DIRECTORY", default="", help="where another release is installed")
    plan = Plan(**vars(parser.parse_args()))
    databases = setup_databases(verbosity=0, interactive=False, aliases={"default", database(plan.engine)})
    try:
        ledger = run(plan)
    finally:
        teardown_databases(databases, verbosity=0)
    print(f"{plan.engine}, {plan.drains} drain(s) at once, at most {plan.workers} worker(s) each: {ledger}")
    most = ledger.kills * (plan.workers + READY)
    print(f"{ledger.kills} kills x ({plan.workers} workers + {READY}): at most {most} copies in any such run")
    for fault in ledger.faults():
        print(fault)
    return bool(ledger.faults())


if __name__ == "__main__":
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.settings")
    django.setup()
    sys.exit(main())
