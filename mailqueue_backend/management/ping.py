"""Request a URL after a run that went well, for a dead man's switch: a service that reports when requests stop."""

from __future__ import annotations

from argparse import ArgumentTypeError
from http.client import HTTPException
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from ..delivery.words import in_words, printable

#: Seconds that the server may take to answer.
TIMEOUT = 10


def url(text: str) -> str:
    """Return a URL that can be requested. Raises ArgumentTypeError, which does not quote it: it may be secret."""
    problem = ArgumentTypeError("it is not a URL such as https://hc-ping.com/your-uuid")
    try:
        parts = urlsplit(text)
        is_usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        raise problem from None
    if not is_usable or not text.isascii() or not text.isprintable() or " " in text:
        raise problem
    if parts.username is not None:
        raise ArgumentTypeError("a URL with a user name or password is not supported")
    return text


def ping(address: str) -> str:
    """Request a URL, and return why that failed, in one line; "" if it did not."""
    try:
        with urlopen(address, timeout=TIMEOUT):
            return ""
    except HTTPError as error:
        error.close()
        reason = f"HTTP status {error.code}"
    except URLError as error:
        reason = in_words(error.reason)
    except (OSError, HTTPException) as error:
        reason = in_words(error)
    return f"The ping of {urlsplit(address).hostname} failed: {printable(reason)}"
