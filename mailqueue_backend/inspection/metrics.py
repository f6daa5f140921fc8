"""The figures of queues in Prometheus' text format, and a file of them for node_exporter's textfile collector.

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from .figures import Figures

_STATES = ("due", "deferred", "reserved", "dead")
_MODE = 0o644


def as_metrics(figures: Sequence[Figures]) -> str:
    """Return the metrics. A queue in which nothing waits has no oldest message."""
    lines = ["# HELP mailqueue_messages Messages in the queue.", "# TYPE mailqueue_messages gauge"]
    for each in figures:
        for state in _STATES:
            labels = f'queue="{_escape(each.queue)}",state="{state}"'
            lines.append(f"mailqueue_messages{{{labels}}} {getattr(each.counts, state)}")
    oldest = "mailqueue_oldest_created_timestamp_seconds"
    lines += [f"# HELP {oldest} When the oldest waiting message was created.", f"# TYPE {oldest} gauge"]
    for each in figures:
        if each.oldest is not None:
            lines.append(f'{oldest}{{queue="{_escape(each.queue)}"}} {each.oldest}')
    return "\n".join(lines) + "\n"


def replace_file(path: Path, text: str) -> None:
    """Write a file that others may read at any time: they see the old text or the new one. Raises OSError."""
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(name, _MODE)
        os.replace(name, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(name)
        raise


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
