"""Remove mail addresses from errors, for users who may not read messages.

A server's reply may quote an address in any form. So all that can be one is removed, and some words that are none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ..inspection.messages import Message

#: What stands in place of an address.
REMOVED = "[address]"
#: The at sign, also full-width or small, escaped for URLs (%40), SMTP (+40), Quoted-Printable (=40) or HTML, or spelt.
_AT = (
    r"(?:[@\uff20\ufe6b]|%40|[+=]40|\\u0040|\\x40|&\#0*64;|&\#x0*40;|&commat;|&at;|[(\[{<]\s*at\s*[)\]}>]"
    r"|\s+at\s+(?=[\w.-]+\.\w))"
)
_ADDRESSES = re.compile(
    rf"""
      <[^<>]*>?                                  # <user>, <user@example.com>
    | (?<!\S)\S*"[^"]*"\s*{_AT}\s*\S*           # "a user"@example.com
    | (?<!\S)\S*\s*{_AT}\s*\S*                  # user@example.com, user @ example.com, user at example.com
    | (?<!\S)\S+[=!%][\w-]+(?:\.[\w-]+)+\S*     # user=example.com of VERP and SRS, user%example.com, host!user
    """,
    re.VERBOSE | re.IGNORECASE,
)
#: Minimum length of a word that is removed because it is the name in an address of the message.
_SHORTEST_NAME = 3


def without_addresses(text: str, addresses: Iterable[str] = ()) -> str:
    """Return a text without all that looks like an address, and without ``addresses`` and the names in them."""
    text = _ADDRESSES.sub(REMOVED, text)
    for address in addresses:
        for known in (address, address.rpartition("@")[0]):
            if len(known) >= _SHORTEST_NAME:
                text = re.sub(rf"(?<!\w){re.escape(known)}(?!\w)", REMOVED, text, flags=re.IGNORECASE)
    return text


def error_without_addresses(message: Message) -> str:
    """Return the last error of a message without its addresses, and without others."""
    return without_addresses(message.last_error, [message.sender, *message.recipients])
