"""Messages that kill the process that renders them."""

from __future__ import annotations

import os
from typing import Any

from django.core.mail import EmailMessage


class Deadly(EmailMessage):
    """Ends the process, as a crash in a C library or the kernel's want of memory does."""

    def message(self, **kwargs: Any) -> Any:
        """Render, for the last time."""
        os._exit(9)
