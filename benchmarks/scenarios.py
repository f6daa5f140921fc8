"""What is measured: the server, the settings, and the ratios that we promise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from contenders import DJANGO_ALONE, MAILER, OLD_ON_REDIS, OURS_ON_REDIS, OURS_ON_SQLITE, POST_OFFICE, Contender
from servers import DelayingServer, Server, Sink, TLSServer


class Promise(NamedTuple):
    """Ours is at least so many times as fast as another one."""

    ours: Contender
    other: Contender
    ratio: float


class Scenario(NamedTuple):
    """One column of the table."""

    name: str
    title: str
    #: Starts it, with a directory for its files.
    server: Callable[[Path], Server]
    promises: list[Promise]
    settings: dict[str, Any] = {}


_ONE_WORKER = {"MAIL_QUEUE_WORKERS": 1}
_LOGIN = {"EMAIL_USE_TLS": True, "EMAIL_HOST_USER": "shop", "EMAIL_HOST_PASSWORD": "only for the benchmark"}

SCENARIOS = [
    Scenario(
        "pipelining",
        "5 ms per reply, PIPELINING",
        partial(DelayingServer, options=["--delay=0.005", "--pipelining"]),
        [Promise(OURS_ON_REDIS, OLD_ON_REDIS, 20), Promise(OURS_ON_REDIS, POST_OFFICE, 2.5)],
    ),
    Scenario(
        "plain",
        "5 ms per reply",
        partial(DelayingServer, options=["--delay=0.005"]),
        [Promise(OURS_ON_REDIS, OLD_ON_REDIS, 12), Promise(OURS_ON_REDIS, POST_OFFICE, 1.5)],
    ),
    Scenario(
        "tls",
        "STARTTLS and AUTH, one worker",
        partial(TLSServer, options=["--delay=0", "--pipelining"]),
        [Promise(OURS_ON_REDIS, OLD_ON_REDIS, 2.5)],
        _LOGIN | _ONE_WORKER,
    ),
    Scenario(
        "sink",
        "C sink, one worker",
        Sink,
        [
            Promise(OURS_ON_REDIS, OLD_ON_REDIS, 1.1),
            Promise(OURS_ON_REDIS, DJANGO_ALONE, 0.8),
            Promise(OURS_ON_SQLITE, MAILER, 1.2),
        ],
        _ONE_WORKER,
    ),
    Scenario("default", "C sink", Sink, [Promise(OURS_ON_SQLITE, MAILER, 1.2)]),
]
