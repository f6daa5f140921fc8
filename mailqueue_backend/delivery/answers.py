"""What the server has answered to one transaction, put together from the transcript and the error that ended it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

from ..transport.connection import Transcript
from .policy import reply_of_a_service
from .verdict import Reply, Verdict
from .words import decoded, in_words, reply_of

_CLOSING = 421


class Answer:
    """The replies to one transaction. A connection that the server closed counts as a 421 to the step it left open."""

    def __init__(self, transcript: Transcript, error: Exception | None = None) -> None:
        self.error = error
        #: The replies to recipients who were refused for themselves, by address.
        self.refused: dict[str, Reply] = {}
        #: The reply to all recipients alike; None: there is none, or none that can be known.
        self.reply: Reply | None = None
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            replies = transcript.refused or error.recipients
        else:
            replies = transcript.refused
        for address, answer in replies.items():
            reply = Reply("RCPT", *decoded(answer))
            if reply.code == _CLOSING:
                self.reply = reply
            else:
                self.refused[address] = reply
        if isinstance(error, smtplib.SMTPSenderRefused):
            self.reply = reply_of(error, "MAIL")
        elif isinstance(error, smtplib.SMTPServerDisconnected):
            self.reply = self.reply or Reply(transcript.step, _CLOSING, in_words(error))
        elif isinstance(error, smtplib.SMTPResponseException):
            self.reply = reply_of(error, transcript.step)
        elif error is not None:
            self.reply = self.reply or reply_of_a_service(error)

    def replies(self) -> Iterator[Reply]:
        """Yield the reply to all, then those to single recipients."""
        if self.reply is not None:
            yield self.reply
        yield from self.refused.values()

    @property
    def doubt(self) -> Reply | None:
        """The reply that leaves it open whether the message can be accepted later; None: each one is certain."""
        if self.reply is not None:
            return self.reply if self.reply.verdict is Verdict.DOUBT else None
        uncertain = (Verdict.DOUBT, Verdict.FULL)
        return next((reply for reply in self.refused.values() if reply.verdict in uncertain), None)

    @property
    def is_lost(self) -> bool:
        """The connection was lost: after the dot, the message may have arrived."""
        return isinstance(self.error, smtplib.SMTPServerDisconnected)

    @property
    def is_hang_up(self) -> bool:
        """The server has hung up before the whole message was sent."""
        return self.reply is not None and self.reply.code == _CLOSING and self.reply.step != "dot"
