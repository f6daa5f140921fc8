"""Checks of the settings by themselves: types, ranges, misspelt names, the discard log's directory."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from difflib import get_close_matches
from typing import Any

from django.core.checks import CheckMessage, Error, Warning

from ..errors import ConfigurationError
from ..settings import Setting, all_settings, conf, names_in_settings

PREFIX = "MAIL_QUEUE_"
#: How similar a name without the prefix must be to one of ours to count as misspelt, from 0 to 1.
SIMILAR = 0.9


def value_of(name: str) -> Any:
    """Return the value of a setting; None if it is wrong, which check_settings() and check_ranges() report."""
    with suppress(ConfigurationError):
        return getattr(conf, name)
    return None


def check_settings(**kwargs: Any) -> list[CheckMessage]:
    """Report each setting that has a wrong type, or is not one of the choices."""
    return [*_failures(Setting.check_type, "mailqueue_backend.E001")]


def check_ranges(**kwargs: Any) -> list[CheckMessage]:
    """Report each number that is out of range."""
    return [*_failures(Setting.check_range, "mailqueue_backend.E005")]


def _failures(check: Callable[[Setting[Any], object], None], id: str) -> Iterator[CheckMessage]:
    for setting in all_settings():
        try:
            check(setting, setting.read())
        except ConfigurationError as error:
            yield Error(error.problem, hint=error.hint or None, id=id)


def check_names(**kwargs: Any) -> list[CheckMessage]:
    """Warn of each setting that has our prefix but is not ours, or whose name is almost one of ours."""
    known = [setting.name for setting in all_settings() if setting.name.startswith(PREFIX)]
    problems: list[CheckMessage] = []
    for name in names_in_settings():
        if name in known:
            continue
        if name.startswith(PREFIX):
            ends = [each.removeprefix(PREFIX) for each in known]
            near = [PREFIX + end for end in get_close_matches(name.removeprefix(PREFIX), ends, 1)]
            problems.append(_unknown(name, *near))
        elif name.startswith("MAIL"):
            problems.extend(_unknown(name, near) for near in get_close_matches(name, known, 1, SIMILAR))
    return problems


def _unknown(name: str, near: str = "") -> CheckMessage:
    return Warning(
        f"{name} in your settings is not a setting of the mail queue.",
        hint=f"Did you mean {near}?" if near else "Remove or rename it. The documentation lists the settings.",
        id="mailqueue_backend.W004",
    )


def check_log(**kwargs: Any) -> list[CheckMessage]:
    """Warn of a discard log that this process could not write."""
    filename = value_of("MAIL_QUEUE_LOG_FILENAME")
    problem = _problem_of_log(os.path.abspath(filename)) if filename is not None else None
    if problem is None:
        return []
    return [
        Warning(
            f"MAIL_QUEUE_LOG_FILENAME: {problem}.",
            hint=(
                "Create the directory, give write access to the user that runs process_mail_queue, or name another "
                "file. Only process_mail_queue writes the log, so silence this warning where it does not run."
            ),
            id="mailqueue_backend.W005",
        )
    ]


def _problem_of_log(path: str) -> str | None:
    """Return what prevents writing or rotating the log, if anything does."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        return f"the directory {directory} does not exist"
    if not os.access(directory, os.W_OK | os.X_OK):
        return f"this process cannot write to the directory {directory}"
    if os.path.isdir(path):
        return f"{path} is a directory"
    if os.path.exists(path) and not os.access(path, os.W_OK):
        return f"this process cannot write to the file {path}"
    return None
