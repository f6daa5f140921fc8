"""Who was refused: which recipients a server turned away, for now or for good, and what that means."""

from __future__ import annotations

import copy
import smtplib
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

#: HTTP's statuses that are about what was posted (RFC 9110, section 15.5), and not about the account or the address.
_ABOUT_THE_MESSAGE = {400, 413, 415, 422}


class Refusal(NamedTuple):
    """One recipient that the server did not take."""

    recipient: str
    code: int
    reply: str

    @property
    def permanent(self) -> bool:
        """5xx: trying again is of no use."""
        return is_permanent(self.code)

    def __str__(self) -> str:
        return f"{self.code} {self.reply}"


def is_permanent(code: int) -> bool:
    """Tell whether a reply code refuses for good (RFC 5321, section 4.2.1)."""
    return 500 <= code < 600


def refusals(
    recipients: Sequence[str], addresses: Sequence[str], replies: Mapping[str, tuple[int, bytes]]
) -> list[Refusal]:
    """Name the refused of ``recipients``; ``replies`` is smtplib's dict, by their addresses as they were sent."""
    names = dict(zip(addresses, recipients)) if len(addresses) == len(recipients) else {}  # noqa: B905 - just checked
    return [
        Refusal(names.get(address, address), code, reply.decode("utf-8", "replace"))
        for address, (code, reply) in replies.items()
    ]


def refused_for_good(error: object) -> bool:
    """Tell whether an error is the refusal of the whole message, which trying again does not change."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return all(is_permanent(code) for code, _ in error.recipients.values())
    if isinstance(error, smtplib.SMTPResponseException):
        return is_permanent(error.smtp_code)
    return _refused_by_a_service(error)


def _refused_by_a_service(error: object) -> bool:
    """Tell it for django-anymail: its own refusals, and what an HTTP API says to the request itself (RFC 9110)."""
    anymail = sys.modules.get("anymail.exceptions")
    if anymail is None or not isinstance(error, anymail.AnymailError):
        return False
    if error.status_code is not None:
        return error.status_code in _ABOUT_THE_MESSAGE
    return not isinstance(error, anymail.AnymailAPIError)


def addressed_to(message: Any, recipients: list[str]) -> Any:
    """Copy a message that goes to these recipients alone; its headers name all, as before."""
    duplicate = copy.copy(message)
    vars(duplicate)["recipients"] = lambda: recipients
    return duplicate
