"""Promises about counts instead of times: one round is enough, since other load does not matter."""

from __future__ import annotations

import json
import os
import subprocess
from functools import partial
from pathlib import Path

from contenders import ONE_WORKER_ON_SQLITE, OURS_ON_POSTGRESQL
from needs import Missing
from promises import Verdict
from servers import DelayingServer
from turns import Turn

#: Workers of the drain whose connections are counted, and enough messages to start them all.
WORKERS, MESSAGES = 8, 400


def calls(environments: Path) -> list[Verdict]:
    """Count the function calls per message."""
    environment = ONE_WORKER_ON_SQLITE.environment
    answer = subprocess.run(
        [environment.python(environments), Path(__file__).with_name("calls.py"), "--json"],
        stdout=subprocess.PIPE,
        check=True,
        env={**os.environ, **environment.variables},
    )
    return [Verdict(*fields) for fields in json.loads(answer.stdout)]


def connections(environments: Path) -> list[Verdict]:
    """Count the connections to the database that a drain opens."""
    text, target = f"connections that a drain with {WORKERS} workers opens to PostgreSQL", "at most 1"
    server = partial(DelayingServer, options=["--delay=0.005", "--pipelining"])
    turn = Turn(OURS_ON_POSTGRESQL, server, MESSAGES, settings={"MAIL_QUEUE_WORKERS": WORKERS})
    try:
        opened = turn.run(environments)["connections"]
    except Missing as missing:
        return [Verdict(text, str(missing), target, None)]
    return [Verdict(text, str(opened), target, opened <= 1)]


#: The functions by their names on the command line; each takes the directory of the environments.
COUNTS = {"calls": calls, "connections": connections}
