"""Decide whether to retry a message at once, in another transaction, instead of requeueing it."""

from __future__ import annotations

from ..transport.connection import Transcript
from ..transport.pipelining import OutOfStep
from .answers import Answer
from .link import Link
from .mailer import Mailer
from .verdict import Reply, Step, Verdict


class Retries:
    """The transactions of one message after the first.

    If the server accepted or refused only some recipients, the others get another transaction. A message that was
    accepted for no recipient is retried on a new connection, then without pipelining, each once and if it may help.
    """

    def __init__(self, mailer: Mailer, link: Link, transcript: Transcript) -> None:
        self.may_pipeline = mailer.pipelining
        self._mailer = mailer
        self._link = link
        self._transcript = transcript
        #: Recipients that had been accepted or refused, other than with FULL, when prepare_next() was last called.
        self._settled: set[str] = set()
        #: The reply before the retry on a new connection, and the one before the retry without pipelining.
        self._before_reconnect: Reply | None = None
        self._before_unpipelined: Reply | None = None

    def prepare_next(self, answer: Answer) -> bool:
        """Prepare another transaction, to all recipients except ``transcript.skip``; return False if none may help."""
        if self._prepare_remaining(answer) or self._prepare_retry(answer):
            return True
        self._update_mailer(answer)
        return False

    def _prepare_remaining(self, answer: Answer) -> bool:
        """Prepare a transaction for the remaining recipients; return False if none remain, or there was no progress."""
        transcript = self._transcript
        final = [address for address, reply in answer.refused.items() if reply.verdict is not Verdict.FULL]
        settled = {*transcript.accepted, *final}
        progress, self._settled = len(settled) - len(self._settled), settled
        rest = [address for address in transcript.recipients if address not in settled]
        if not rest or progress <= 0 or not (answer.error is None or answer.is_hang_up):
            return False
        self._exclude(settled)
        return True

    def _prepare_retry(self, answer: Answer) -> bool:
        """Prepare a retry on a new connection; return False if none may help."""
        if self._transcript.accepted or self._link.has_failed or not self._choose_retry(answer):
            return False
        self._link.hang_up()
        refused = answer.refused.items()
        self._exclude({address for address, reply in refused if reply.verdict is Verdict.RECIPIENT})
        return True

    def _choose_retry(self, answer: Answer) -> bool:
        """Choose how to retry: as before, or without pipelining, each once; return False if neither may help."""
        mailer, doubt = self._mailer, answer.doubt
        if isinstance(answer.error, OutOfStep):
            was_allowed = self.may_pipeline
            self.may_pipeline = mailer.pipelining = False
            return was_allowed
        if doubt is None or (doubt.step == "dot" and answer.is_lost):
            return False
        if self._link.accepted and not self._before_reconnect and _step_and_code(doubt) not in mailer.lasting:
            self._before_reconnect = doubt
            return True
        if self._link.was_pipelined and not mailer.pipelining_is_proven and not self._before_unpipelined:
            self._before_unpipelined, self.may_pipeline = doubt, False
            return True
        return False

    def _exclude(self, settled: set[str]) -> None:
        """Skip these recipients in the next transaction, and remove the refusals of all others."""
        self._transcript.skip = settled
        for address in [address for address in self._transcript.refused if address not in settled]:
            del self._transcript.refused[address]

    def _update_mailer(self, answer: Answer) -> None:
        """Record in the mailer, for the next messages, which retry changed the server's answer."""
        mailer, is_delivered = self._mailer, bool(self._transcript.accepted) or answer.error is None
        if self._before_reconnect and _step_and_code(self._before_reconnect) == _step_and_code(answer.doubt):
            mailer.lasting.add(_step_and_code(self._before_reconnect))
        if self._before_unpipelined:
            mailer.pipelining = mailer.pipelining and not is_delivered
            mailer.pipelining_is_proven = _step_and_code(self._before_unpipelined) == _step_and_code(answer.doubt)
        elif is_delivered and self._link.was_pipelined:
            mailer.pipelining_is_proven = True


def _step_and_code(reply: Reply | None) -> tuple[Step, int]:
    """Return what makes two replies count as the same."""
    return ("dot", 0) if reply is None else (reply.step, reply.code)
