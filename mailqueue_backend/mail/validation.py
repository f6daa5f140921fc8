"""Refuse what Django cannot send, and no retry can mend, while the caller can still handle the error.

What costs little is checked for each message. What looks suspicious is rendered as Django's SMTP backend would render
it, so that Django decides, and raises its own error.
"""

from __future__ import annotations

import codecs
import copy
import re
from typing import Any

from django.core.mail import EmailMessage
from django.core.mail import message as django_message
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.utils.functional import Promise

from ..envelope.compat import DJANGOS_CLASSES, USES_LEGACY_API, remove_connection, render
from ..errors import UnstorableMessage, interrupts

_ADDRESS = r"[\w+-]+(?:\.[\w+-]+)*@[\w-]{1,63}(?:\.[\w-]{1,63})*"
#: Matches addresses that every Django can send; it decides on all others.
_PLAIN_ADDRESS = re.compile(rf"{_ADDRESS}|(?:[\w+-]+ )+<{_ADDRESS}>", re.ASCII)
#: The headers that Django parses as addresses.
_ADDRESS_HEADERS = frozenset({"from", "sender", "reply-to", "to", "cc", "bcc"})


def refuse_unsendable(message: EmailMessage, by_smtp: bool) -> None:
    """Raise the error with which Django would fail to send a message.

    ValueError for a newline in a header. If Django's SMTP backend will send the message as it is (``by_smtp``), also
    ValueError for an invalid address, its subclass UnicodeEncodeError for text that cannot be encoded, LookupError for
    an unknown charset, and UnstorableMessage if Django raises anything else for an address.
    """
    addresses = list(map(str, (message.from_email, *message.to, *message.cc, *message.bcc)))
    headers: list[Any] = [message.subject, *addresses, *message.reply_to]
    address_headers = list(message.reply_to)
    is_suspicious = False
    for name, value in message.extra_headers.items():
        headers += (name, value)
        if str(name).lower() in _ADDRESS_HEADERS:
            address_headers.append(value)
        is_suspicious |= not USES_LEGACY_API and (str(name).lower() == "bcc" or not isinstance(value, (str, Promise)))
    text = "\0".join(map(str, headers))
    if text.splitlines() != [text]:
        # Django finds a newline in bcc, which is no header, when it prepares the envelope.
        _refuse_addresses(message, [one for one in _envelope(message) if len(str(one).splitlines()) > 1])
        _render(message)
    if not by_smtp:
        return
    if type(message) in DJANGOS_CLASSES:
        is_suspicious |= not "".join(map(str, address_headers)).isascii()
    if is_suspicious or not _can_encode(message, text):
        _render(message)
    if not all(map(_PLAIN_ADDRESS.fullmatch, addresses)):
        _refuse_addresses(message, _envelope(message))


def _envelope(message: EmailMessage) -> list[Any]:
    # An overridden recipients() may change the message.
    return [message.from_email, *copy.copy(message).recipients()]


def _can_encode(message: EmailMessage, headers: str) -> bool:
    """Return whether the headers and texts of a message can be encoded, as far as one sees without rendering it."""
    encoding = str(message.encoding or "utf-8")
    texts = [message.body]
    for alternative in getattr(message, "alternatives", None) or ():
        if isinstance(alternative, (tuple, list)):
            texts += alternative[:1]
    try:
        codecs.lookup(encoding)
        headers.encode()
        for text in texts:
            if isinstance(text, str):
                text.encode(encoding)
    except (LookupError, ValueError):
        return False
    return True


def _refuse_addresses(message: EmailMessage, addresses: list[Any]) -> None:
    """Raise the error of Django for the first address that it cannot send."""
    for address in addresses:
        try:
            prepare_address(address, message.encoding or "utf-8")
        except interrupts():
            raise
        except Exception as error:  # Python's parser may raise anything for what is no address
            if _is_about_text(error):
                raise
            raise UnstorableMessage(f"Django cannot send to or from {address!r}: {error}") from error


def prepare_address(address: Any, encoding: Any) -> Any:
    """Prepare an address as Django's SMTP backend does when it sends. Raises what Django and Python's parser raise."""
    # Django < 6.0: a function of the module.
    if not hasattr(SMTPBackend, "prep_address"):
        return django_message.sanitize_address(address, encoding)
    return SMTPBackend.prep_address(_BACKEND, address)


#: prep_address() uses nothing of its backend, and making one would need settings.
_BACKEND: Any = SMTPBackend.__new__(SMTPBackend)


def _render(message: EmailMessage) -> None:
    """Render a copy of a message, and raise Django's error if that fails because of a value in it.

    Attachments are left out, except where a site's own class may read them.
    """
    duplicate = copy.copy(message)
    remove_connection(duplicate)
    for name, value in vars(duplicate).items():
        if type(value) in (list, dict):
            setattr(duplicate, name, value.copy())
    if type(message) in DJANGOS_CLASSES:
        duplicate.attachments = []
    try:
        render(duplicate)
    except interrupts():
        raise
    except Exception as error:
        if _is_about_text(error):
            raise
        # A site's own message() may fail now and not in a drain.
        if type(message) in DJANGOS_CLASSES:
            raise UnstorableMessage(f"Django cannot render the message: {error}") from error


def _is_about_text(error: Exception) -> bool:
    """Return whether an error says what is wrong: UnicodeError or ValueError, or LookupError for an unknown charset."""
    return isinstance(error, ValueError) or type(error) is LookupError
