"""Which messages a drain may try, and for whom: MAIL_QUEUE_SITE and MAIL_QUEUE_ONLY_TO.

With these, a copy of production's database, or a look at its queue by mistake, sends nothing to production's users.
"""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

from django.core.mail import EmailMessage

from ..envelope import Envelope, Meta
from ..errors import interrupts
from ..settings import conf
from .addressing import bare_address, plain_text, recipients_of, sends_like_django, with_addresses
from .policy import Disposition, bury
from .requeueing import stored_for
from .settling import Delivery
from .words import in_words, some_of


class Split(NamedTuple):
    """A message that may not be sent to all of its recipients."""

    #: Those to whom it may be sent; empty: to nobody.
    allowed: list[str]
    others: list[str]
    reason: str


class Admission:
    """The two settings, as they were when the drain began."""

    def __init__(self) -> None:
        self._site = conf.MAIL_QUEUE_SITE or ""
        self._only_to = None if conf.MAIL_QUEUE_ONLY_TO is None else {*map(_normalised, conf.MAIL_QUEUE_ONLY_TO)}

    def is_foreign(self, meta: Meta) -> bool:
        """Return whether a message is left to the drains of another site."""
        return meta.site not in ("", self._site)

    def describe_foreign(self, queue: str, meta: Meta) -> str:
        """Return the line about messages of another site."""
        ours = f"is {self._site!r}" if self._site else "is not set"
        return (
            f"{queue}: messages of the site {meta.site!r} are not tried, but released for an hour, since "
            f"MAIL_QUEUE_SITE {ours} here."
        )

    def restrict(self, backend: Any, delivery: Delivery, envelope: Envelope) -> Disposition | None:
        """Restrict a message to the recipients that are allowed, and split the others from it.

        Return a disposition if nobody is allowed, or if it cannot be split; otherwise None.
        """
        delivery.aside = None
        if self._only_to is None:
            return None
        try:
            split = self._split(backend, envelope.email, envelope.meta)
            if split is None:
                return None
            if not split.allowed:
                return bury(split.reason)
            delivery.aside = stored_for(delivery.reservation.payload, split.others), split.reason
        except interrupts():
            raise
        except Exception as error:  # noqa: BLE001 - a site's own message may raise anything, and not be picklable
            return bury(f"its recipients cannot be restricted as MAIL_QUEUE_ONLY_TO says: {in_words(error)}")
        envelope.meta.remaining = split.allowed
        envelope.meta.write(envelope.extra)
        return None

    def _split(self, backend: Any, message: Any, meta: Meta) -> Split | None:
        """Split the recipients of a message; None: all are allowed.

        A backend that need not send to ``recipients()`` alone gets no message of which a recipient is not allowed.
        """
        is_exact = isinstance(message, EmailMessage) and sends_like_django(backend)
        everyone = _everyone(message, meta)
        concerned = everyone if is_exact else with_addresses(everyone, recipients_of(message))
        others = [recipient for recipient in concerned if not self._allows(recipient)]
        if concerned and not others:
            return None
        reason = f"MAIL_QUEUE_ONLY_TO does not allow {some_of(others) if others else 'what has no recipients'}"
        return Split([each for each in everyone if each not in others] if is_exact else [], others, reason)

    def _allows(self, recipient: str) -> bool:
        assert self._only_to is not None
        address = _normalised(recipient)
        return address in self._only_to or address[address.rfind("@") :] in self._only_to


def _everyone(message: Any, meta: Meta) -> list[str]:
    """Return the recipients still to be delivered to, as the message spells them."""
    if meta.remaining is not None:
        return list(meta.remaining)
    if not isinstance(message, EmailMessage):
        return recipients_of(message)
    # An overridden recipients() may change the message.
    return [plain_text(recipient) for recipient in copy.copy(message).recipients()]


def _normalised(entry: str) -> str:
    """Return a bare address, or a domain with its @, for comparison."""
    return (bare_address(f"x{entry}")[1:] if entry.startswith("@") else bare_address(entry)).lower()
