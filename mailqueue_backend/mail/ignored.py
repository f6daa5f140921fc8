"""The server and the login that a caller chooses for a message: they are not stored, and a warning says so."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import interrupts
from ..logs import get_logger
from .mailers import make_mailer

logger = get_logger("storing")

#: The arguments of a backend that choose a server and a login.
_SERVER_ARGUMENTS = (
    "host",
    "port",
    "username",
    "password",
    "use_tls",
    "use_ssl",
    "timeout",
    "ssl_keyfile",
    "ssl_certfile",
)
#: The names of ignored arguments of which this process has warned.
_warned_of: set[str] = set()


def server_arguments(kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a backend that choose a server or a login, and come from a caller."""
    # Django >= 6.1: the arguments of get_connection(), beside a mailer's OPTIONS.
    names = _SERVER_ARGUMENTS if kwargs.get("alias") is None else kwargs.get("_ignore_unknown_kwargs", ())
    return {name: kwargs[name] for name in _SERVER_ARGUMENTS if name in names and kwargs.get(name) is not None}


def warn_of_ignored(backend: Any, arguments: Mapping[str, Any]) -> None:
    """Warn once, for each set of names, of arguments that a drain ignores: it makes a backend of its own."""
    try:
        # Django >= 6.1: get_connection() makes the default mailer with further arguments.
        delivering: Any = type(backend)() if backend.alias is None else make_mailer(backend.alias)
    except interrupts():
        raise
    except Exception:  # noqa: BLE001 - a site's class may need arguments
        return
    ignored = [
        name for name, value in arguments.items() if getattr(backend, name, value) != getattr(delivering, name, None)
    ]
    names = ", ".join(ignored)
    if ignored and names not in _warned_of:
        _warned_of.add(names)
        logger.warning(
            "Ignored: %s, as given to get_connection() or send_mail(). Queued mail is sent with the site's own "
            "settings. For another server or login, send with a mailer of its own in MAILERS (Django 6.1), or with "
            "a subclass of QueuedEmailBackend that sets these values, and its queue, in __init__().",
            names,
        )
