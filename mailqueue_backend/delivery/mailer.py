"""What a drain knows of one mailer, shared by its workers: whether it can be used, and by which senders.

Each attribute changes by one assignment, or one call of a set or dict: no lock is needed.
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

#: Messages of one sender that are refused alike, with nothing accepted in between, before that sender pauses.
REFUSALS_OF_A_SENDER = 3
#: Senders that pause, with nothing accepted in between, before the mailer is blocked.
PAUSED_SENDERS = 2


class Refused(NamedTuple):
    """One message that the server has refused, perhaps because of its sender."""

    sender: str
    reply: Reply
    id: str
    #: Domains of its recipients.
    domains: Set[str]
    #: What the log is to say of it.
    lines: Sequence[str]
    #: The exception that carried the reply, if one did.
    error: object = None


class _Kind(NamedTuple):
    """Refusals of one kind."""

    sender: str
    step: Step
    code: int


class Mailer:
    """One mailer in one drain."""

    def __init__(self, backend: Any, troubles: Troubles, is_only: bool = True) -> None:
        self._is_only = is_only
        #: A QueueingMixin. The first worker delivers by it, the others by copies.
        self.backend = backend
        #: Its class overrides the hook _send_queued_messages().
        self.has_own_hook: bool = backend._has_own_hook
        #: Why nothing can be sent: an exception or a text. It is asked once in a drain, not once for each message.
        self.blocked: object = None
        #: Why the last connection could not be made, though others could.
        self.failure: object = None
        #: Envelope senders whose mail waits for the next drain, and why.
        self.paused: dict[str, str] = {}
        #: Commands are pipelined where the server announces it; False once that has failed.
        self.pipelining = True
        #: The server has taken a pipelined message, or refuses the same without pipelining.
        self.pipelining_is_proven = False
        #: Refusals that a new connection does not change, as (step, code).
        self.lasting: set[tuple[Step, int]] = set()
        #: The sessions that have a connection now.
        self.connected: set[Any] = set()
        #: Messages that were refused and of which the log does not know yet, by kind and id.
        self._refused: dict[_Kind, dict[str, Refused]] = {}
        #: Senders that have paused since a message was accepted.
        self._paused_in_a_row: set[str] = set()
        self._troubles = troubles

    @property
    def name(self) -> str:
        """Where it delivers, for people: "smtp.example.org:587", after its alias where there are several mailers."""
        host, port = getattr(self.backend, "host", None), getattr(self.backend, "port", None)
        delivers_with = getattr(self.backend, "delivers_with", type(self.backend))
        name = f"{host}:{port}" if host else f"{delivers_with.__module__}.{delivers_with.__qualname__}"
        alias = getattr(self.backend, "alias", None) or "default"
        return name if self._is_only else f"mailer {alias!r}, {name}"

    def reason_to_wait(self, sender: str) -> object:
        """Return why a message of this sender is not tried now; None: it is."""
        return self.blocked or self.paused.get(sender)

    def note_failed_connection(self, session: Any, error: Exception) -> bool:
        """Note that a session gets no connection; return whether others have one, and it may leave the work to them."""
        self.connected.discard(session)
        self.failure = error
        # A server may limit its connections: then the others go on.
        if not self.connected:
            self.blocked = error
        return bool(self.connected)

    def note_accepted(self, sender: str) -> None:
        """Note that a message was accepted: whatever was refused before, the sender's account works."""
        if self._refused:
            self._report_refused([kind for kind in list(self._refused) if kind.sender == sender])
        self._paused_in_a_row.clear()

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
        """Note a message that may have been refused because of its sender, and pause a sender of several such ones."""
        sender, reply = refused.sender, refused.reply
        if not reply.incriminates:
            self.report(refused.id, refused.lines, refused.error)
            return
        kind = _Kind(sender, reply.step, reply.code)
        alike = self._refused.setdefault(kind, {})
        alike[refused.id] = refused
        if self._refused.get(kind) is not alike:
            # Another worker has just logged the others.
            self.report(refused.id, refused.lines, refused.error)
            return
        if len(alike) < REFUSALS_OF_A_SENDER or not _shows_the_sender(kind, alike):
            return
        self.paused[sender] = f"{reply} (mail from {sender or '<>'})"
        self._refused.pop(kind, None)
        self._paused_in_a_row.add(sender)
        if len(self._paused_in_a_row) >= PAUSED_SENDERS:
            self.blocked = str(reply)

    def report(self, message_id: str, lines: Sequence[str], error: object = None) -> None:
        """Log what was refused of one message; with a traceback, if the error is not the network's, or at DEBUG."""
        trace = error if isinstance(error, Exception) and _has_traceback(error) else None
        say = partial(logger.warning, "%s", exc_info=trace)
        for line in lines:
            self._troubles.report((message_id, without_ids(line.rpartition(" (")[0])), line, say=say)

    def reasons(self, is_left: bool) -> list[str]:
        """Return why messages wait, in words; ``is_left``: some were not tried."""
        if self.blocked is not None:
            return [in_words(self.blocked)]
        reasons = list(self.paused.values())
        if not reasons and is_left and self.failure is not None:
            reasons.append(in_words(self.failure))
        return reasons

    def end(self, is_left: bool, waiting: str) -> None:
        """Log why messages wait; ``is_left``: some were not tried. ``waiting`` says how many, and since when."""
        self._report_refused(list(self._refused))
        for reason in self.reasons(is_left):
            text = f"{self.name}: {reason.rstrip('.: ')}. {waiting}"
            self._troubles.report((self.name, without_ids(reason)), text, f"{self.name}: works again.")

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
