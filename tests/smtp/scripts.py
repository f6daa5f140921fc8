"""Scripts: which action a server takes at which step.

The steps are banner, EHLO, HELO, STARTTLS, TLS, AUTH, MAIL, RCPT, DATA, body (its first line), dot, RSET and QUIT.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from threading import Lock
from typing import TypeAlias

from .faults import Fault

#: A reply ("450 later"), a fault, or None for what a good server does.
Action: TypeAlias = "str | Fault | None"
#: (step, argument of the command) -> action. Called when the step is reached, in the session's thread.
Script: TypeAlias = "Callable[[str, str], Action]"


def good(step: str, argument: str) -> Action:
    """Act as a good server does at every step."""
    return None


def always(step: str, action: str | Fault) -> Script:
    """Script one step, whenever it is reached."""
    return lambda reached, argument: action if reached == step else None


def in_turn(**steps: Iterable[Action]) -> Script:
    """Script the first times that each step is reached, and nothing after them."""
    turns, lock = {step: iter(actions) for step, actions in steps.items()}, Lock()

    def script(step: str, argument: str) -> Action:
        with lock:
            return next(turns.get(step, iter(())), None)

    return script


def by_recipient(replies: dict[str, str]) -> Script:
    """Script the answers to RCPT by address."""
    return lambda step, argument: replies.get(address_in(argument)) if step == "RCPT" else None


def delayed(step: str, seconds: float) -> Script:
    """Take some time at one step, whenever it is reached."""
    return lambda reached, argument: time.sleep(seconds) if reached == step else None


def address_in(argument: str) -> str:
    """Return the address in the argument of MAIL or RCPT."""
    return argument.partition("<")[2].partition(">")[0]
