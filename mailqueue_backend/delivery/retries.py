"""Whether a message goes into a further transaction at once, instead of back to the queue."""

from __future__ import annotations

from ..transport.connection import Transcript
from ..transport.pipelining import OutOfStep
from .answers import Answer
from .link import Link
from .mailer import Mailer
from .verdict import Reply, Step, Verdict


class Retries:
    """Decides about the transactions of one message.

    A further one is for recipients of whom the server has not spoken yet. A message that nobody has accepted is tried
    once more on a new connection, and once without pipelining, where that may be what the server objects to.
    """

    def __init__(self, mailer: Mailer, link: Link, transcript: Transcript) -> None:
        self.may_pipeline = mailer.pipelining
        self._mailer = mailer
        self._link = link
        self._transcript = transcript
        #: Recipients whose fate was known before the last transaction.
        self._settled: set[str] = set()
        #: What was refused before the message was tried on a new connection, and before it was without pipelining.
        self._before_new: Reply | None = None
        self._before_plain: Reply | None = None

    def goes_on(self, answer: Answer) -> bool:
        """Return whether to send the message again now, to those who are not in ``transcript.skip``."""
        if self._continues(answer) or self._tries_again(answer):
            return True
        self._learn(answer)
        return False

    def _continues(self, answer: Answer) -> bool:
        """Return whether the server takes the rest of the recipients in another transaction."""
        transcript = self._transcript
        final = [address for address, reply in answer.refused.items() if reply.verdict is not Verdict.FULL]
        settled = {*transcript.accepted, *final}
        progress, self._settled = len(settled) - len(self._settled), settled
        rest = [address for address in transcript.recipients if address not in settled]
        if not rest or progress <= 0 or not (answer.error is None or answer.is_hang_up):
            return False
        self._send_to_others_than(settled)
        return True

    def _tries_again(self, answer: Answer) -> bool:
        """Return whether a new connection, or one without pipelining, may change what nobody has accepted."""
        transcript, mailer, doubt = self._transcript, self._mailer, answer.doubt
        if transcript.accepted or self._link.has_failed:
            return False
        if isinstance(answer.error, OutOfStep):
            again, self.may_pipeline, mailer.pipelining = self.may_pipeline, False, False
        elif doubt is None or (doubt.step == "dot" and answer.is_lost):
            again = False
        elif self._link.accepted and not self._before_new and (doubt.step, doubt.code) not in mailer.lasting:
            again, self._before_new = True, doubt
        elif self._link.was_pipelined and not mailer.pipelining_is_proven and not self._before_plain:
            again, self._before_plain, self.may_pipeline = True, doubt, False
        else:
            again = False
        if again:
            self._link.hang_up()
            refused = answer.refused.items()
            self._send_to_others_than({to for to, reply in refused if reply.verdict is Verdict.RECIPIENT})
        return again

    def _send_to_others_than(self, settled: set[str]) -> None:
        self._transcript.skip = settled
        for address in [address for address in self._transcript.refused if address not in settled]:
            del self._transcript.refused[address]

    def _learn(self, answer: Answer) -> None:
        """Keep for the messages that follow what has helped, and what has not."""
        mailer, is_delivered = self._mailer, bool(self._transcript.accepted) or answer.error is None
        if self._before_new and _kind(self._before_new) == _kind(answer.doubt):
            mailer.lasting.add(_kind(self._before_new))
        if self._before_plain:
            mailer.pipelining = mailer.pipelining and not is_delivered
            mailer.pipelining_is_proven = _kind(self._before_plain) == _kind(answer.doubt)
        elif is_delivered and self._link.was_pipelined:
            mailer.pipelining_is_proven = True


def _kind(reply: Reply | None) -> tuple[Step, int]:
    return ("dot", 0) if reply is None else (reply.step, reply.code)
