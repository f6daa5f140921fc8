"""A site's own queue-front module, which stores files in the directory TEST_SPOOL and can only read and write."""

from __future__ import annotations

import os
import time
from pathlib import Path
from uuid import uuid4


class Queue:
    """One file per payload; the file names sort in the order of writing."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._directory = Path(os.environ["TEST_SPOOL"], name)
        self._directory.mkdir(exist_ok=True)

    def write(self, payload: bytes) -> bool:
        """Create the file atomically."""
        name = f"{time.time_ns():020}-{uuid4().hex}"
        unfinished = self._directory / f".{name}"
        unfinished.write_bytes(payload)
        unfinished.rename(self._directory / name)
        return True

    def read(self) -> bytes | None:
        """Remove the oldest file and return its payload; return None if the queue is empty."""
        for path in self._files():
            taken = path.with_name(f".{path.name}")
            try:
                path.rename(taken)
            except FileNotFoundError:
                continue
            payload = taken.read_bytes()
            taken.unlink()
            return payload
        return None

    def __len__(self) -> int:
        return len(self._files())

    def _files(self) -> list[Path]:
        return sorted(path for path in self._directory.iterdir() if not path.name.startswith("."))
