"""A task for Django's Tasks framework, which Django has since 6.0: deliver the queued mail."""

from __future__ import annotations

from typing import Any

try:
    from django.tasks import task
except ImportError as error:
    raise ImportError(
        "mailqueue_backend.tasks needs django.tasks, which Django has since 6.0. "
        "On an older one, run manage.py process_mail_queue, or call it in a task of Celery."
    ) from error

from .delivery.limits import DrainOptions
from .mail.runs import Run


@task
def process_mail_queue(
    using: str | None = None,
    limit: int | None = None,
    time_limit: float | None = None,
    workers: int | None = None,
    expire: float | None = None,
) -> dict[str, Any]:
    """Drain each queue once, and return the figures that ``manage.py process_mail_queue --json`` prints.

    The arguments are those of the command. Unlike the command, it handles no signals. Raises MailQueueError.
    """
    run = Run()
    run.drain(using, DrainOptions(limit, time_limit, workers), *([] if expire is None else [expire]))
    if run.failure is not None:
        raise run.failure
    return run.figures()
