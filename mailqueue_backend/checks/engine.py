"""Checks of QUEUE_BACKEND: an engine that cannot be used, or cannot hold mail."""

from __future__ import annotations

from typing import Any

from django.core import mail
from django.core.checks import CheckMessage, Error, Warning

from ..errors import ConfigurationError
from ..queues import open_queue
from ..settings import conf
from .redis import check_redis_address
from .settings import check_ranges, check_settings, value_of

#: The reason why each of these queue-front modules cannot hold mail on Python 3.
_UNUSABLE = {
    "beanstalkd": "it needs beanstalkc, which is Python 2 only",
    "sqs": "it needs boto, which does not run on a current Python",
    "memcached": "memcached keeps only the last message",
}
_ENGINES = "Use redisd, or leave QUEUE_BACKEND out and use the database queue."


def check_queue(**kwargs: Any) -> list[CheckMessage]:
    """Report a queue engine that cannot be used, for a reason that no other check reports."""
    problems = _unusable()
    try:
        open_queue(conf.MAIL_QUEUE_NAME)
    except ConfigurationError as error:
        reported = [problem.msg for problem in (*check_settings(), *check_ranges(), *check_redis_address())]
        if error.problem not in reported:
            problems.append(Error(error.problem, hint=error.hint or None, id="mailqueue_backend.E002"))
    return problems


def _unusable() -> list[CheckMessage]:
    backend = value_of("QUEUE_BACKEND")
    if backend not in _UNUSABLE:
        return []
    problem = f"QUEUE_BACKEND = {backend!r} cannot hold mail: {_UNUSABLE[backend]}."
    return [Warning(problem, hint=_ENGINES, id="mailqueue_backend.W001")]


def check_dummy(**kwargs: Any) -> list[CheckMessage]:
    """Warn of queue-front's dummy in production. In a test run, where Django turns DEBUG off, it is harmless."""
    if value_of("QUEUE_BACKEND") != "dummy" or conf.DEBUG or hasattr(mail, "outbox"):
        return []
    problem = 'QUEUE_BACKEND = "dummy" keeps mail in the memory of one process, and loses it when the process ends.'
    return [Warning(problem, hint=_ENGINES, id="mailqueue_backend.W003")]
