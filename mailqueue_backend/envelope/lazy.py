"""Lazily translated text, which is pickled as the text that it stands for now."""

from __future__ import annotations

import pickle
import re
from io import BytesIO
from typing import Any

from django.utils.functional import Promise

#: What a pickle contains that has a lazy text of Django's in it.
LAZY_TEXT = re.compile(rb"_lazy_proxy_unpickle")


class _TextPickler(pickle.Pickler):
    def reducer_override(self, obj: Any) -> Any:
        return (str, (str(obj),)) if isinstance(obj, Promise) else NotImplemented


def pickle_with_text(content: dict[str, Any], protocol: int) -> bytes:
    """Pickle each lazy text as text: the drain knows nothing of the sender's language."""
    buffer = BytesIO()
    _TextPickler(buffer, protocol).dump(content)
    return buffer.getvalue()
