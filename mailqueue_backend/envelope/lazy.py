"""Pickle lazily translated text as plain text, in the language that is active now."""

from __future__ import annotations

import pickle
import re
from io import BytesIO
from typing import Any

from django.utils.functional import Promise

#: Found in every pickle that contains a lazy text of Django's.
LAZY_TEXT = re.compile(rb"_lazy_proxy_unpickle")


class _TextPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (str, (str(obj),)) if isinstance(obj, Promise) else NotImplemented


def pickle_with_text(content: dict[str, Any], protocol: int) -> bytes:
    """Pickle lazy texts as plain text: a drain does not know the sender's language."""
    buffer = BytesIO()
    _TextPickler(buffer, protocol).dump(content)
    return buffer.getvalue()
