"""The state of one mailer during a drain: whether it is blocked, and which senders are paused.

All workers share it. Each change is a single assignment or a single call of a set or dict, so no lock is needed.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence, Set
from functools import partial
from typing import Any, NamedTuple

from ..logs import get_logger
from .troubles import Troubles
from .verdict import Reply, Step
from .words import in_words, is_of_the_network, without_ids

logger = get_logger("delivery")

#: Messages of one sender with the same refusal, and none accepted in between, after which the sender is paused.
REFUSALS_OF_A_SENDER = 3
#: Senders paused, with no message accepted in between, after which the mailer is blocked.
PAUSED_SENDERS = 2


class Refused(NamedTuple):
    """One message that the server has refused, perhaps because of its sender."""

    sender: str
    reply: Reply
    id: str
    #: Domains of its recipients.
    domains: Set[str]
    #: The lines to log about it.
    lines: Sequence[str]
    #: The exception that carried the reply, if any.
    error: object = None


class _Kind(NamedTuple):
    """What refusals must have in common to count as the same."""

    sender: str
    step: Step
    code: int


class Mailer:
    """One mailer during one drain."""

    def __init__(self, backend: Any, troubles: Troubles, is_only: bool = True) -> None:
        self._is_only = is_only
        #: A QueueingMixin. The first worker delivers through it, the others through copies.
        self.backend = backend
        #: Whether the backend's class overrides the hook _send_queued_messages().
        self.has_own_hook: bool = backend._has_own_hook
        #: Why nothing can be sent in this drain: an exception, a Reply or a text; None: not blocked.
        self.blocked: object = None
        #: The latest error of a session that could not connect; None: none has failed.
        self.failure: object = None
        #: By envelope sender, why its messages wait for the next drain.
        self.paused: dict[str, str] = {}
        #: Whether to pipeline if the server announces PIPELINING; False once that has failed.
        self.pipelining = True
        #: Whether the server has accepted a pipelined message, or has refused one in the same way without pipelining.
        self.pipelining_is_proven = False
        #: Refusals that a retry on a new connection did not change, as (step, code).
        self.lasting: set[tuple[Step, int]] = set()
        #: The links that are connected.
        self.connected: set[Any] = set()
        #: Refused messages that are not logged yet, by kind and id.
        self._refused: dict[_Kind, dict[str, Refused]] = {}
        #: Senders that were paused since a message was last accepted.
        self._paused_since_success: set[str] = set()
        self._troubles = troubles

    @property
    def alias(self) -> str:
        """The alias in MAILERS."""
        return getattr(self.backend, "alias", None) or "default"

    @property
    def relay(self) -> str:
        """The server, such as "smtp.example.org:587", or else the class of the backend that delivers."""
        host, port = getattr(self.backend, "host", None), getattr(self.backend, "port", None)
        delivers_with = getattr(self.backend, "delivers_with", type(self.backend))
        return f"{host}:{port}" if host else f"{delivers_with.__module__}.{delivers_with.__qualname__}"

    @property
    def name(self) -> str:
        """The relay, for the log; after the alias if there are several mailers."""
        return self.relay if self._is_only else f"mailer {self.alias!r}, {self.relay}"

    def reason_to_wait(self, sender: str) -> object:
        """Return why a message of this sender must wait for the next drain; None if it can be tried."""
        return self.blocked or self.paused.get(sender)

    def note_failed_connection(self, link: Any, error: Exception) -> bool:
        """Record that a link could not connect; return whether others are connected and can do its work."""
        self.connected.discard(link)
        self.failure = error
        # The server may limit the number of connections, so the others are not affected.
        if not self.connected:
            self.blocked = error
        return bool(self.connected)

    def note_accepted(self, sender: str) -> None:
        """Record that a message was accepted, which shows that the sender's account works."""
        if self._refused:
            self._report_refused([kind for kind in list(self._refused) if kind.sender == sender])
        self._paused_since_success.clear()

    def counts_as_tried(self, refused: Refused) -> bool:
        """Return whether a refused message counts as tried. If its sender has to pause, the fourth one does not.

        Several workers may meet the same limit at once.
        """
        kind = _Kind(refused.sender, refused.reply.step, refused.reply.code)
        if not refused.reply.incriminates:
            return True
        alike = self._refused.setdefault(kind, {})
        alike.setdefault(refused.id, refused)
        before = list(alike)[:REFUSALS_OF_A_SENDER]
        if refused.sender not in self.paused and (refused.id in before or not _shows_the_sender(kind, alike)):
            return True
        alike.pop(refused.id, None)
        return False

    def note_refused(self, refused: Refused) -> None:
        """Record a refused message. Pause the sender after several refusals that may concern its account."""
        sender, reply = refused.sender, refused.reply
        if not reply.incriminates:
            self.report(refused.id, refused.lines, refused.error)
            return
        kind = _Kind(sender, reply.step, reply.code)
        alike = self._refused.setdefault(kind, {})
        alike[refused.id] = refused
        if self._refused.get(kind) is not alike:
            # Another worker has just removed the others, and logged them or paused the sender.
            if sender not in self.paused:
                self.report(refused.id, refused.lines, refused.error)
            return
        if len(alike) < REFUSALS_OF_A_SENDER or not _shows_the_sender(kind, alike):
            return
        self.paused[sender] = f"{reply} (mail from {sender or '<>'})"
        self._refused.pop(kind, None)
        self._paused_since_success.add(sender)
        if len(self._paused_since_success) >= PAUSED_SENDERS:
            self.blocked = str(reply)

    def report(self, message_id: str, lines: Sequence[str], error: object = None) -> None:
        """Log the refusals of one message, with a traceback at DEBUG or for an error that is not the network's."""
        trace = error if isinstance(error, Exception) and _has_traceback(error) else None
        log = partial(logger.warning, "%s", exc_info=trace)
        for line in lines:
            self._troubles.report((message_id, without_ids(line.rpartition(" (")[0])), line, log=log)

    def reasons(self, is_left: bool) -> list[str]:
        """Return why messages wait, as texts; ``is_left``: whether some were not tried."""
        if self.blocked is not None:
            return [in_words(self.blocked)]
        reasons = list(self.paused.values())
        if not reasons and is_left and self.failure is not None:
            reasons.append(in_words(self.failure))
        return reasons

    def end(self, is_left: bool, waiting: str) -> None:
        """Log why messages wait. ``is_left``: whether some were not tried; ``waiting``: the text on number and age."""
        for reason in self.reasons(is_left):
            text = f"{self.name}: {reason.rstrip('.: ')}. {waiting}"
            self._troubles.report((self.name, without_ids(reason)), text, f"{self.name}: works again.")

    def report_refused(self) -> None:
        """Log the refused messages whose senders have not been paused."""
        self._report_refused(list(self._refused))

    def _report_refused(self, kinds: Sequence[_Kind]) -> None:
        for kind in kinds:
            for refused in list(self._refused.pop(kind, {}).values()):
                self.report(refused.id, refused.lines, refused.error)


def _shows_the_sender(kind: _Kind, alike: dict[str, Refused]) -> bool:
    """Return whether refusals are the sender's fault, and not that of the recipients' one domain."""
    domains = set().union(*(each.domains for each in list(alike.values())))
    return kind.step != "RCPT" or len(domains) > 1


def _has_traceback(error: Exception) -> bool:
    return not is_of_the_network(error) or logger.isEnabledFor(logging.DEBUG)
