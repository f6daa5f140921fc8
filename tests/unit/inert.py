"""Checks that opening an untrusted payload yields only plain data and changes no class."""

from __future__ import annotations

import email.charset
import email.header
import email.message
import email.mime.application
import email.mime.audio
import email.mime.base
import email.mime.image
import email.mime.message
import email.mime.multipart
import email.mime.nonmultipart
import email.mime.text
from datetime import datetime
from email.policy import compat32
from typing import Any

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail import message as django_message

from mailqueue_backend.envelope import Envelope
from mailqueue_backend.envelope.legacy.mime import PARTS

NAMED_TUPLES = {getattr(django_message, name, tuple) for name in ("EmailAttachment", "EmailAlternative")}
LEAVES = {type(None), bool, int, float, str, bytes, datetime}
CONTAINERS = {list, tuple, dict, *NAMED_TUPLES}
OBJECTS = {EmailMessage, EmailMultiAlternatives, email.charset.Charset, email.header.Header, *PARTS.values()}


def find_fault(envelope: Envelope) -> str | None:
    """Describe the first object in the envelope that is not plain data, a stock message or a stock MIME part."""
    todo: list[Any] = [envelope.email, envelope.created, envelope.extra]
    while todo:
        value = todo.pop()
        if type(value) in OBJECTS:
            todo += vars(value).values()
            methods = [name for name in vars(value) if callable(getattr(type(value), name, None))]
            if methods:
                return f"{type(value)} has attributes that shadow its methods {methods}"
        elif type(value) is dict:
            todo += [*value, *value.values()]
        elif type(value) in CONTAINERS:
            todo += value
        elif type(value) not in LEAVES and value is not compat32:
            return f"{type(value)}"
    return None


def snapshot_classes() -> dict[str, Any]:
    """Return the attributes of all these classes and of compat32."""
    found = {
        f"{each.__module__}.{each.__name__}": dict(vars(each)) for each in (*OBJECTS, *NAMED_TUPLES, type(compat32))
    }
    for attributes in found.values():
        attributes.pop("__slotnames__", None)  # copyreg adds it at the first pickling
    return found | {"compat32": dict(vars(compat32))}
