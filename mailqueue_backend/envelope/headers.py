"""The headers of a message: a dict, or a class of the site: case-insensitive, or with several values for a name."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import interrupts
from .pickling import dump_thoroughly


def copy_headers(headers: Any) -> Any:
    """Return a copy as the queue will return it, of the same class if that can be pickled, or else a dict."""
    if headers is None or type(headers) in (dict, OrderedDict):
        return dict(headers or {})
    copied = _attempt(lambda: pickle.loads(dump_thoroughly(headers).getbuffer()))
    return copied if copied is not None and _items(copied) == _items(headers) else dict(headers.items())


def with_header(headers: Any, name: str, value: str) -> Any:
    """Return a copy of the headers with one more, or the headers themselves if their class accepts none."""
    expected = [*_items(headers), (name.lower(), value)]
    for add in (_add, _add_list, _make_with):
        extended = _attempt(lambda add=add: add(copy_headers(headers), name, value))  # type: ignore[misc]
        if extended is not None and _items(extended) == expected:
            return extended
    return headers


def _add(headers: Any, name: str, value: Any) -> Any:
    headers[name] = value
    return headers


def _add_list(headers: Any, name: str, value: str) -> Any:
    return _add(headers, name, [value])


def _make_with(headers: Any, name: str, value: str) -> Any:
    return type(headers)({**dict(headers.items()), name: value})


def _items(headers: Mapping[Any, Any]) -> list[tuple[str, str]]:
    return [(str(name).lower(), str(value)) for name, value in headers.items()]


def _attempt(make: Callable[[], Any]) -> Any:
    """Return what ``make`` returns, or None if it raises: a site's class may raise any exception."""
    try:
        return make()
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - as the docstring says
        return None
