"""The scenarios that measure rates: server, contenders, settings, and the ratios that we promise."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from contenders import (
    DJANGO_ALONE,
    MAILER,
    MAILER_IN_WAL,
    OLD_ON_REDIS,
    ONE_WORKER_ON_REDIS,
    ONE_WORKER_ON_SQLITE,
    OURS_IN_WAL,
    OURS_ON_POSTGRESQL,
    OURS_ON_REDIS,
    OURS_ON_SQLITE,
    POST_OFFICE,
    POST_OFFICE_IN_WAL,
    Contender,
)
from promises import Promise
from servers import DelayingServer, Server, Sink, TLSServer


class Scenario(NamedTuple):
    """One column of the table of rates."""

    name: str
    title: str
    #: Start the server, given a directory for its files.
    server: Callable[[Path], Server]
    contenders: list[Contender]
    promises: list[Promise]
    messages: int = 1000
    #: Whether the server delays its replies; serial contenders then deliver a tenth of the messages, to save time.
    delayed: bool = False
    #: What is timed: "drain", or "send" for send() one by one.
    measure: str = "drain"
    settings: dict[str, Any] = {}

    def messages_for(self, contender: Contender, wanted: int | None) -> int:
        """Return the number of messages for a contender; ``wanted`` overrides the scenario's number."""
        messages = wanted or self.messages
        return -(-messages // 10) if self.delayed and contender.serial else messages


_LOGIN = {"EMAIL_USE_TLS": True, "EMAIL_HOST_USER": "shop", "EMAIL_HOST_PASSWORD": "only for the benchmark"}
_OURS = [OURS_ON_SQLITE, OURS_ON_REDIS]
_WITH_ONE_WORKER = [ONE_WORKER_ON_SQLITE, ONE_WORKER_ON_REDIS]
_OTHERS = [OLD_ON_REDIS, POST_OFFICE, MAILER, DJANGO_ALONE]

SCENARIOS = [
    Scenario(
        "pipelining",
        "5 ms per reply, PIPELINING",
        partial(DelayingServer, options=["--delay=0.005", "--pipelining"]),
        [*_OURS, OURS_ON_POSTGRESQL, *_OTHERS],
        [
            Promise(OURS_ON_REDIS, [OLD_ON_REDIS], 20),
            Promise(OURS_ON_REDIS, [POST_OFFICE], 2.8),
            Promise(OURS_ON_SQLITE, [POST_OFFICE], 2.8),
            Promise(OURS_ON_POSTGRESQL, [POST_OFFICE], 2.8),
        ],
        delayed=True,
    ),
    Scenario(
        "plain",
        "5 ms per reply",
        partial(DelayingServer, options=["--delay=0.005"]),
        [*_OURS, *_OTHERS],
        [Promise(OURS_ON_REDIS, [OLD_ON_REDIS], 12), Promise(OURS_ON_REDIS, [POST_OFFICE], 1.5)],
        delayed=True,
    ),
    Scenario(
        "tls",
        "STARTTLS and AUTH",
        partial(TLSServer, options=["--delay=0", "--pipelining"]),
        [*_WITH_ONE_WORKER, *_OTHERS],
        [Promise(ONE_WORKER_ON_REDIS, [OLD_ON_REDIS], 2.5)],
        messages=500,
        settings=_LOGIN,
    ),
    Scenario(
        "sink",
        "C sink",
        Sink,
        [
            OURS_ON_REDIS,
            ONE_WORKER_ON_REDIS,
            DJANGO_ALONE,
            OLD_ON_REDIS,
            ONE_WORKER_ON_SQLITE,
            POST_OFFICE,
            OURS_ON_SQLITE,
            MAILER,
        ],
        [
            Promise(ONE_WORKER_ON_REDIS, [OLD_ON_REDIS], 1.1),
            Promise(ONE_WORKER_ON_REDIS, [DJANGO_ALONE], 0.8),
            Promise(OURS_ON_REDIS, [ONE_WORKER_ON_REDIS], 0.9),
            Promise(ONE_WORKER_ON_SQLITE, [POST_OFFICE], 0.8),
            Promise(ONE_WORKER_ON_SQLITE, [MAILER], 1.2),
            Promise(OURS_ON_SQLITE, [MAILER], 1.2),
        ],
    ),
    Scenario(
        "backlog",
        "C sink, long drain",
        Sink,
        [ONE_WORKER_ON_REDIS, DJANGO_ALONE],
        [Promise(ONE_WORKER_ON_REDIS, [DJANGO_ALONE], 0.9)],
        messages=3000,
    ),
    Scenario(
        "send",
        "send() one by one",
        partial(DelayingServer, options=["--delay=0", "--pipelining"]),
        # Contenders that are compared run directly after one another.
        [
            *(OURS_ON_SQLITE, POST_OFFICE, MAILER),
            *(OURS_IN_WAL, POST_OFFICE_IN_WAL, MAILER_IN_WAL),
            *(OURS_ON_REDIS, OLD_ON_REDIS),
        ],
        [
            Promise(OURS_ON_SQLITE, [POST_OFFICE, MAILER], 1.0),
            Promise(OURS_IN_WAL, [POST_OFFICE_IN_WAL, MAILER_IN_WAL], 0.8),
            Promise(OURS_ON_REDIS, [OLD_ON_REDIS], 0.7),
        ],
        messages=1500,
        measure="send",
    ),
]
