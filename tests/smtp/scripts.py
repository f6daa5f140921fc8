"""Scripts: the action that a server takes at each step.

The steps are banner, EHLO, HELO, STARTTLS, TLS, AUTH, MAIL, RCPT, DATA, body (its first line), dot, RSET and QUIT.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TypeAlias

from .faults import Fault

#: A reply ("450 later"), a fault, or None for the usual answer.
Action: TypeAlias = "str | Fault | None"
#: (step, argument of the command) -> action. Called when the step is reached, in the session's thread.
Script: TypeAlias = "Callable[[str, str], Action]"


def good(step: str, argument: str) -> Action:
    """Answer every step as usual."""
    return None


def always(step: str, action: str | Fault) -> Script:
    """Take this action each time that the step is reached."""
    return lambda reached, argument: action if reached == step else None


def in_turn(**steps: Iterable[Action]) -> Script:
    """Take the actions of each step in turn, one each time that the step is reached; then answer as usual."""
    turns, lock = {step: iter(actions) for step, actions in steps.items()}, Lock()

    def script(step: str, argument: str) -> Action:
        with lock:
            return next(turns.get(step, iter(())), None)

    return script


def by_recipient(replies: dict[str, str]) -> Script:
    """Answer RCPT with the reply for its address, if there is one."""
    return lambda step, argument: replies.get(address_in(argument)) if step == "RCPT" else None


def delayed(step: str, seconds: float) -> Script:
    """Wait each time that the step is reached, then answer as usual."""
    return lambda reached, argument: time.sleep(seconds) if reached == step else None


def address_in(argument: str) -> str:
    """Return the address in the argument of MAIL or RCPT."""
    return argument.partition("<")[2].partition(">")[0]
