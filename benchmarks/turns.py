"""A turn: one contender delivers to a new server, in its own process and with its own database."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from contenders import Contender
from servers import Server


class Turn(NamedTuple):
    """One measurement of one contender."""

    contender: Contender
    #: Start the server, given a directory for its files.
    server: Callable[[Path], Server]
    messages: int
    #: What is timed: "drain" or "send".
    measure: str = "drain"
    settings: dict[str, Any] = {}

    def run(self, environments: Path) -> dict[str, float]:
        """Return the rate and the number of database connections.

        Raise Missing if a server or program is missing, and AssertionError if messages are lost.
        """
        with TemporaryDirectory(prefix="mailqueue-benchmark-") as name, self.server(Path(name)) as server:
            answer = self._deliver_to(server, Path(name), environments)
            if (received := server.received()) != self.messages:
                raise AssertionError(f"{self.contender.name} delivered {received} of {self.messages} messages")
        return answer

    def _deliver_to(self, server: Server, directory: Path, environments: Path) -> dict[str, float]:
        settings = {**self.contender.settings_in(directory), **self.settings}
        settings |= {"EMAIL_HOST": "127.0.0.1", "EMAIL_PORT": server.port}
        environment = self.contender.environment
        process = subprocess.run(
            [environment.python(environments), Path(__file__).with_name("deliver.py")],
            input=json.dumps(
                {
                    "settings": settings,
                    "command": self.contender.command,
                    "messages": self.messages,
                    "measure": self.measure,
                }
            ),
            capture_output=True,  # django-post_office logs each batch
            text=True,
            cwd=directory,
            env={**os.environ, **environment.variables, **server.variables, "TMPDIR": str(directory)},
        )
        if process.returncode:
            print(process.stderr, file=sys.stderr)
        process.check_returncode()
        answer: dict[str, float] = json.loads(process.stdout)
        return answer
