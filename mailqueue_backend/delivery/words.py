"""Errors as text for an operator, without Python's class names where possible."""

from __future__ import annotations

import smtplib
import socket
import ssl
from datetime import timedelta

from .verdict import Reply, Step

#: The text for a timeout.
_TIMED_OUT = "no answer in time"


def reply_of(error: object, step: Step) -> Reply | None:
    """Return the server's reply that an exception carries, as a reply to ``step``; None if it carries none."""
    if isinstance(error, smtplib.SMTPResponseException):
        return Reply(step, *decode_reply((error.smtp_code, error.smtp_error)))
    return None


def in_words(error: object) -> str:
    """Return an error, a reply or a text as one line."""
    if isinstance(error, smtplib.SMTPRecipientsRefused):
        return "; ".join(f"{name}: {Reply('RCPT', *decode_reply(reply))}" for name, reply in error.recipients.items())
    if reply := error if isinstance(error, Reply) else reply_of(error, "MAIL"):
        return str(reply)
    return " ".join(_text(error).split())


def decode_reply(reply: tuple[int, bytes | str]) -> tuple[int, str]:
    """Return the code and the decoded text of a reply from smtplib."""
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
    """Return whether the server or the network caused an error, so that its traceback would not help."""
    return isinstance(error, (smtplib.SMTPException, ConnectionError, TimeoutError, ssl.SSLError, socket.gaierror))


def duration(seconds: float) -> str:
    """Return a duration in its largest unit: "3 minutes"."""
    span = timedelta(seconds=max(seconds, 0))
    for unit, size in (("day", timedelta(days=1)), ("hour", timedelta(hours=1)), ("minute", timedelta(minutes=1))):
        if span >= size:
            return count(span // size, unit)
    return count(round(span.total_seconds()), "second")


def count(number: int, noun: str) -> str:
    """Return a number and its noun: "1 message", "2 messages"."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def printable(text: str) -> str:
    """Replace the characters that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def without_ids(text: str) -> str:
    """Remove all words that contain digits, such as queue ids, so that repeated replies compare equal."""
    return " ".join(word for word in text.split() if not any(map(str.isdigit, word)))
