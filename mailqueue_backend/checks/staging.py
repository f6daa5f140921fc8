"""A check of the settings that are for copies of a site: in production, they keep mail back."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Warning

from .settings import value_of


def check_only_to(**kwargs: Any) -> list[CheckMessage]:
    """Warn that MAIL_QUEUE_ONLY_TO is set."""
    if value_of("MAIL_QUEUE_ONLY_TO") is None:
        return []
    problem = "MAIL_QUEUE_ONLY_TO is set: all mail for other addresses goes to the dead queue."
    return [Warning(problem, hint="Remove it from the settings of production.", id="mailqueue_backend.W013")]
