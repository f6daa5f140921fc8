"""Recipients: the names that a message has for them, and the addresses that a server sees."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from email.utils import parseaddr
from typing import Any

from django.core.mail import EmailMessage


def plain_text(recipient: object) -> str:
    """Return a recipient as text of Python's own class; Django takes any object that is text, or can be."""
    return str.__str__(recipient) if isinstance(recipient, str) else str(recipient)


def names_of(addresses: Iterable[str], recipients: Sequence[str]) -> list[str]:
    """Return the recipients, as a message names them, to whom these addresses belong, as they were sent to a server."""
    known = {_as_sent(recipient): recipient for recipient in reversed(recipients)}
    return [known.get(_as_sent(address), address) for address in addresses]


def with_addresses(recipients: Sequence[str], addresses: Iterable[str]) -> list[str]:
    """Add to the recipients the addresses that belong to none of them."""
    known = set(map(_as_sent, recipients))
    return [*dict.fromkeys(recipients), *(address for address in addresses if _as_sent(address) not in known)]


def _as_sent(recipient: str) -> str:
    """Return the bare address, its domain in ASCII."""
    local, at, domain = parseaddr(recipient)[1].rpartition("@")
    with suppress(UnicodeError):
        domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain.lower()}"


def addressed_to(message: Any, recipients: Collection[str]) -> Any:
    """Copy a message that goes to these of its recipients alone; its headers name all, as before.

    The copy is of a class of its own, so that copies of the copy, such as a backend makes that sends to each recipient
    separately, go to these alone, too. A class that finds its recipients itself may answer differently each time: its
    recipients() is not called.
    """
    kind = type(message)
    chosen, named = dict.fromkeys(recipients), _named_in(message)

    def remaining(self: Any) -> list[Any]:
        if kind.recipients is not EmailMessage.recipients and _named_in(self) == named:
            return list(chosen)
        return [recipient for recipient in kind.recipients(self) if plain_text(recipient) in chosen]

    duplicate = copy.copy(message)
    duplicate.__class__ = type(kind.__name__, (kind,), {"recipients": remaining, "__module__": kind.__module__})
    return duplicate


def _named_in(message: Any) -> list[Any]:
    return [getattr(message, name, None) for name in ("to", "cc", "bcc")]
