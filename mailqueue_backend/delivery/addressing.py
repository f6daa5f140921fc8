"""Recipients, as a message spells them (``"Ann <ann@example.com>"``) and as a server sees them."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from email.utils import parseaddr
from typing import Any

from django.core.mail import EmailMessage


def plain_text(recipient: object) -> str:
    """Return a recipient as a plain ``str``; Django accepts any object that str() converts, such as a lazy string."""
    return str.__str__(recipient) if isinstance(recipient, str) else str(recipient)


def recipients_of(message: Any) -> list[str]:
    """Return the recipients in to, cc and bcc, without calling the methods of a site's own class."""
    fields = [getattr(message, name, None) or () for name in ("to", "cc", "bcc")]
    return [plain_text(recipient) for field in fields if not isinstance(field, str) for recipient in field]


def names_of(addresses: Iterable[str], recipients: Sequence[str]) -> list[str]:
    """Return the recipients, as the message spells them, for addresses as they were sent to a server."""
    known = {bare_address(recipient): recipient for recipient in reversed(recipients)}
    return [known.get(bare_address(address), address) for address in addresses]


def with_addresses(recipients: Sequence[str], addresses: Iterable[str]) -> list[str]:
    """Return the recipients, each address once, and those of the addresses that belong to none of them."""
    return list({bare_address(each): each for each in reversed([*recipients, *addresses])}.values())[::-1]


def bare_address(recipient: str) -> str:
    """Return the bare address, its domain in ASCII."""
    local, at, domain = parseaddr(recipient)[1].rpartition("@")
    with suppress(UnicodeError):
        domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain.lower()}"


def addressed_to(message: Any, recipients: Collection[str]) -> Any:
    """Return a copy of a message that is sent only to these of its recipients; the headers still list all of them.

    The copy has a new class, so that copies of the copy are restricted too: a backend may copy a message to send it to
    each recipient separately. An overridden recipients() may return something else on each call, so it is not called
    while to, cc and bcc are unchanged.
    """
    message_class = type(message)
    chosen, fields = dict.fromkeys(recipients), _recipient_fields(message)

    def remaining(self: Any) -> list[Any]:
        if message_class.recipients is not EmailMessage.recipients and _recipient_fields(self) == fields:
            return list(chosen)
        return [recipient for recipient in message_class.recipients(self) if plain_text(recipient) in chosen]

    duplicate = copy.copy(message)
    attributes = {"recipients": remaining, "__module__": message_class.__module__}
    duplicate.__class__ = type(message_class.__name__, (message_class,), attributes)
    return duplicate


def _recipient_fields(message: Any) -> list[Any]:
    return [getattr(message, name, None) for name in ("to", "cc", "bcc")]
