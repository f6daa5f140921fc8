"""Upgrade messages that another Django release has pickled, so that they render the same under this one.

An upgrade changes only what this Django cannot send, so it may be applied to any message, any number of times.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Callable
from email.charset import Charset
from email.header import Header
from email.message import Message
from email.policy import SMTP
from functools import partial
from inspect import getattr_static
from operator import is_
from typing import Any, NamedTuple

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.core.mail import message as django_message
from django.utils import safestring, translation

#: The attribute in which this Django stores a message's connection, and the one that other releases use.
# Django < 6.1: a plain attribute; 6.1 renames it, and leaves a deprecated property under the old name.
CONNECTION, _OTHER_CONNECTION = (
    ("_connection", "connection")
    if isinstance(getattr_static(EmailMessage, "connection", None), property)
    else ("connection", "_connection")
)
# Django < 6.0: messages are rendered by Python's legacy e-mail API, which accepts a Charset and multipart subtypes.
USES_LEGACY_API = hasattr(EmailMessage, "mixed_subtype")


def _plain_tuple(*members: Any) -> tuple[Any, ...]:
    return members


# Django < 5.2: attachments and alternatives are plain tuples.
_make_attachment = getattr(django_message, "EmailAttachment", _plain_tuple)
_make_alternative = getattr(django_message, "EmailAlternative", _plain_tuple)


class _Attachment(NamedTuple):
    filename: str | None
    content: Any
    mimetype: str | None


class _Alternative(NamedTuple):
    content: Any
    mimetype: str


#: Replacements for the names in a pickle that this Django has removed, or does not have yet.
STAND_INS: dict[tuple[str, str], Any] = {
    ("django.core.mail.message", "EmailAttachment"): _Attachment,
    ("django.core.mail.message", "EmailAlternative"): _Alternative,
    ("django.utils.safestring", "SafeBytes"): bytes,
    ("django.utils.safestring", "SafeText"): safestring.SafeString,
    ("django.utils.safestring", "SafeUnicode"): safestring.SafeString,
    ("django.utils.translation", "ugettext"): translation.gettext,
    ("django.utils.translation", "ungettext"): translation.ngettext,
}


#: The methods that render attachments and alternatives. A class that overrides one of them may store anything there.
_ATTACHMENT_METHODS = ("_create_attachments", "_create_attachment", "_add_attachments", "_add_attachment")
_ALTERNATIVE_METHODS = ("_create_alternatives", "_add_bodies")
_COMMON_METHODS = ("_create_message", "_create_mime_attachment")
#: The classes of messages that Django itself makes.
DJANGOS_CLASSES = (EmailMessage, EmailMultiAlternatives)


def render(message: Any) -> bytes:
    """Return the bytes that Django's SMTP backend sends for a message. May raise anything."""
    # Django < 6.0: message() has no policy.
    rendered = message.message().as_bytes(linesep="\r\n") if USES_LEGACY_API else _with_policy(message)
    return bytes(rendered)


def _with_policy(message: Any) -> Any:
    return message.message(policy=SMTP).as_bytes()


def remove_connection(message: Any) -> None:
    """Remove the connection from a message; it belongs to this process."""
    attributes = vars(message)
    if "connection" in attributes or "_connection" in attributes:
        attributes.pop("connection", None)
        attributes.pop("_connection", None)
        attributes[CONNECTION] = None


def upgrade_message(message: EmailMessage) -> None:
    """Upgrade a message in place, and the messages attached to it."""
    for name, default in (("cc", []), ("bcc", []), ("reply_to", []), ("attachments", []), ("extra_headers", {})):
        if not hasattr(message, name):
            setattr(message, name, default)
    attributes = vars(message)
    attributes.pop(_OTHER_CONNECTION, None)
    attributes.setdefault(CONNECTION, None)
    if not USES_LEGACY_API:
        _upgrade_rendering(message, attributes)
    if message.attachments:
        fill, is_stock = not _overrides(message, _ATTACHMENT_METHODS), type(message) in DJANGOS_CLASSES
        _replace_items(message, "attachments", partial(_upgrade_attachment, fill=fill, is_stock=is_stock))
    if getattr(message, "alternatives", None):
        fill = not _overrides(message, _ALTERNATIVE_METHODS)
        _replace_items(message, "alternatives", partial(_upgrade_alternative, fill=fill))


def _upgrade_rendering(message: EmailMessage, attributes: dict[str, Any]) -> None:
    """Remove or convert what Python's modern e-mail API does not accept."""
    for name, methods in (("mixed_subtype", _ATTACHMENT_METHODS), ("alternative_subtype", _ALTERNATIVE_METHODS)):
        if name in attributes and not _overrides(message, methods):
            del attributes[name]
    if isinstance(encoding := attributes.get("encoding"), Charset):
        attributes["encoding"] = encoding.input_charset


def _overrides(message: EmailMessage, names: tuple[str, ...]) -> bool:
    """Return whether the class of a message overrides one of Django's methods."""
    kind = type(message)
    return kind not in DJANGOS_CLASSES and any(
        getattr(kind, name, None) not in [getattr(stock, name, None) for stock in DJANGOS_CLASSES]
        for name in (*names, *_COMMON_METHODS)
    )


def _replace_items(message: EmailMessage, name: str, upgrade: Callable[[Any], Any]) -> None:
    """Upgrade each item of a list; keep the list itself if no item changes."""
    before = getattr(message, name)
    items = [upgrade(item) for item in before]
    if any(new is not old for new, old in zip(items, before, strict=True)):
        setattr(message, name, items)


def _upgrade_attachment(attachment: Any, fill: bool, is_stock: bool) -> Any:
    """Upgrade an attachment; ``fill``: also what Django's own methods cannot render of it."""
    if isinstance(attachment, Message):
        _upgrade_part(attachment)
        return attachment
    if not isinstance(attachment, (tuple, list)):
        return attachment
    for member in attachment:
        if isinstance(member, EmailMessage):
            upgrade_message(member)
        elif isinstance(member, Message):
            _upgrade_part(member)
    if not fill or len(attachment) not in (2, 3):
        if is_stock and type(attachment) in (tuple, list):
            raise TypeError("an attachment has a number of members that Django cannot send")
        # A site's class may read anything.
        return _make_attachment(*attachment) if type(attachment) is _Attachment else attachment
    filename, content, mimetype = (*attachment, None)[:3]
    mimetype = mimetype or _guess_mimetype(filename)
    content = _upgrade_content(content, mimetype)
    if isinstance(content, bytes) and str(mimetype).startswith("text/"):
        mimetype = django_message.DEFAULT_ATTACHMENT_MIME_TYPE
    return _with_members(attachment, (filename, content, mimetype), _Attachment, _make_attachment)


def _upgrade_alternative(alternative: Any, fill: bool) -> Any:
    if not isinstance(alternative, (tuple, list)) or len(alternative) != 2:
        return alternative
    content, mimetype = alternative
    if fill:
        content = _upgrade_content(content, mimetype)
    return _with_members(alternative, (content, mimetype), _Alternative, _make_alternative)


def _with_members(old: Any, members: tuple[Any, ...], stand_in: type, make: Callable[..., Any]) -> Any:
    """Return the tuple of this Django with these members; ``old`` itself if it is of a site's class and has them."""
    if type(old) in (tuple, list, stand_in):
        return make(*members)
    if len(old) == len(members) and all(map(is_, old, members)):
        return old
    if not isinstance(old, tuple):
        return make(*members)
    new = tuple.__new__(type(old), members)
    if hasattr(old, "__dict__"):
        vars(new).update(vars(old))
    return new


def _upgrade_part(part: Message) -> None:
    """Replace Header objects by text, since Python's modern e-mail API cannot render them."""
    if not USES_LEGACY_API:
        for subpart in part.walk():
            vars(subpart)["_headers"] = [
                (name, value.encode() if isinstance(value, Header) else value) for name, value in subpart.raw_items()
            ]


def _upgrade_content(content: Any, mimetype: str) -> Any:
    """Decode bytes of a text type; return them unchanged if they are not UTF-8."""
    if isinstance(content, bytes) and str(mimetype).startswith("text/"):
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    return content


def _guess_mimetype(filename: str | None) -> str:
    return mimetypes.guess_type(filename or "")[0] or django_message.DEFAULT_ATTACHMENT_MIME_TYPE
