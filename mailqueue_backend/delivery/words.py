"""Errors in words that an operator can act on: whose reply it is, and no Python in it."""

from __future__ import annotations

import smtplib
import socket
import ssl
from datetime import timedelta

from .verdict import Reply, Step

#: How a time-out is said.
_TIMED_OUT = "no answer in time"


def reply_of(error: object, step: Step) -> Reply | None:
    """Return the server's reply that an exception carries; ``step``: to what. None where it carries none."""
    if isinstance(error, smtplib.SMTPResponseException):
        return Reply(step, *decoded((error.smtp_code, error.smtp_error)))
    return None


def in_words(error: object) -> str:
    """Return what went wrong, in one line."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{name}: {Reply('RCPT', *decoded(reply))}" for name, reply in error.recipients.items())
    if reply := error if isinstance(error, Reply) else reply_of(error, "MAIL"):
        return str(reply)
    return " ".join(_text(error).split())


def decoded(reply: tuple[int, bytes | str]) -> tuple[int, str]:
    """Return the code and the text of one of smtplib's replies."""
    code, text = reply
    return code, text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _text(error: object) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"the server's certificate is not trusted: {error.verify_message}"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {(error.reason or str(error)).replace('_', ' ').lower()}"
    if isinstance(error, socket.gaierror):
        return f"its name cannot be resolved: {error.strerror}"
    if isinstance(error, TimeoutError):
        return _TIMED_OUT if not str(error) or error.errno or str(error) == "timed out" else str(error)
    if isinstance(error, smtplib.SMTPException):
        return str(error)
    if isinstance(error, OSError):
        return (error.strerror or str(error)).lower()
    return str(error) if isinstance(error, str) else f"{type(error).__name__}: {error}"


def is_of_the_network(error: object) -> bool:
    """Return whether an error is the server's or the network's, so that a traceback would say nothing."""
    return isinstance(error, (smtplib.SMTPException, ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror))


def duration(seconds: float) -> str:
    """Return a time in its largest unit: "3 minutes"."""
    span = timedelta(seconds=max(seconds, 0))
    for unit, size in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if span >= size:
            return count(span // size, unit)
    return count(round(span.total_seconds()), "second")


def count(number: int, noun: str) -> str:
    """Return a number and its noun: "1 message", "2 messages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def without_ids(text: str) -> str:
    """Return what stays the same of a server's reply, many of which contain an id: the words without digits."""
    return " ".join(word for word in text.split() if not any(map(str.isdigit, word)))
