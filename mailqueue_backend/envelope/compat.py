"""Upgrade messages that another Django release has pickled, so that they render the same under this one.

An upgrade leaves a current message unchanged, so it may be applied to any message, any number of times.
"""

from __future__ import annotations

import mimetypes
from email.charset import Charset
from email.header import Header
from email.message import Message
from inspect import getattr_static
from typing import Any, NamedTuple

from django.core.mail import EmailMessage
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
_USES_LEGACY_API = hasattr(EmailMessage, "mixed_subtype")


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


def upgrade_message(message: EmailMessage) -> None:
    """Upgrade a message in place, and the messages attached to it."""
    for name, default in (("cc", []), ("bcc", []), ("reply_to", []), ("attachments", []), ("extra_headers", {})):
        if not hasattr(message, name):
            setattr(message, name, default)
    attributes = vars(message)
    attributes.pop(_OTHER_CONNECTION, None)
    attributes.setdefault(CONNECTION, None)
    if not _USES_LEGACY_API:
        _upgrade_rendering(attributes)
    if message.attachments:
        message.attachments = [_upgrade_attachment(attachment) for attachment in message.attachments]
    if alternatives := getattr(message, "alternatives", None):
        attributes["alternatives"] = [_upgrade_alternative(alternative) for alternative in alternatives]


def _upgrade_rendering(attributes: dict[str, Any]) -> None:
    attributes.pop("mixed_subtype", None)
    attributes.pop("alternative_subtype", None)
    if isinstance(encoding := attributes.get("encoding"), Charset):
        attributes["encoding"] = encoding.input_charset


def _upgrade_attachment(attachment: Any) -> Any:
    if isinstance(attachment, (tuple, list)):
        return _upgrade_members(*attachment)
    if isinstance(attachment, Message):
        _upgrade_part(attachment)
    return attachment


def _upgrade_members(filename: str | None, content: Any, mimetype: str | None = None) -> Any:
    """Upgrade an attachment given as file name, content and MIME type."""
    mimetype = mimetype or _guess_mimetype(filename)
    content = _upgrade_content(content, mimetype)
    if isinstance(content, bytes) and mimetype.startswith("text/"):
        mimetype = django_message.DEFAULT_ATTACHMENT_MIME_TYPE
    elif isinstance(content, EmailMessage):
        upgrade_message(content)
    elif isinstance(content, Message):
        _upgrade_part(content)
    return _make_attachment(filename, content, mimetype)


def _upgrade_part(part: Message) -> None:
    """Replace Header objects by text, since Python's modern e-mail API cannot render them."""
    if not _USES_LEGACY_API:
        for subpart in part.walk():
            vars(subpart)["_headers"] = [
                (name, value.encode() if isinstance(value, Header) else value) for name, value in subpart.raw_items()
            ]


def _upgrade_alternative(alternative: Any) -> Any:
    content, mimetype = alternative
    return _make_alternative(_upgrade_content(content, mimetype), mimetype)


def _upgrade_content(content: Any, mimetype: str) -> Any:
    """Decode bytes of a text type; return them unchanged if they are not UTF-8."""
    if isinstance(content, bytes) and mimetype.startswith("text/"):
        try:
            return content.decode()
        except UnicodeDecodeError:
            return content
    return content


def _guess_mimetype(filename: str | None) -> str:
    return mimetypes.guess_type(filename or "")[0] or django_message.DEFAULT_ATTACHMENT_MIME_TYPE
