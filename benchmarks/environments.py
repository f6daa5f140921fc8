"""The virtual environments of the contenders."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class Environment:
    """The virtual environment that a contender runs in."""

    name: str
    requirements: list[str]
    #: Requirements that are installed without their dependencies.
    bare: list[str] = field(default_factory=list)
    #: Additional environment variables.
    variables: dict[str, str] = field(default_factory=dict)

    def make(self, directory: Path) -> None:
        """Create the environment if necessary, and install the requirements."""
        python = self.python(directory)
        if not python.exists():
            _run(sys.executable, "-m", "venv", directory / self.name)
        _install(python, *self.requirements)
        if self.bare:
            _install(python, "--no-deps", *self.bare)

    def python(self, directory: Path) -> Path:
        """Return the path of its interpreter."""
        return directory / self.name / "bin" / "python"


def _install(python: Path, *requirements: str) -> None:
    _run(python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *requirements)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)
