"""The server's replies to one transaction, taken from the transcript and the error that ended it."""

from __future__ import annotations

import smtplib
from collections.abc import Iterator

from ..transport.connection import Transcript
from .policy import reply_of_a_service
from .verdict import Reply, Verdict
from .words import decode_reply, in_words, reply_of

#: The reply of a server that closes the connection.
_CLOSING = 421


class Answer:
    """The replies to one transaction. A lost connection counts as a 421 reply to the step that was pending."""

    def __init__(self, transcript: Transcript, error: Exception | None = None) -> None:
        self.error = error
        #: The replies that refused single recipients, by address.
        self.refused: dict[str, Reply] = {}
        #: The reply that applies to all recipients; None: there was none, or it is unknown.
        self.reply: Reply | None = None
        if isinstance(error, smtplib.SMTPRecipientsRefused):
            replies = transcript.refused or error.recipients
        else:
            replies = transcript.refused
        for address, answer in replies.items():
            reply = Reply("RCPT", *decode_reply(answer))
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
        """Yield the reply that applies to all recipients, then those to single recipients."""
        if self.reply is not None:
            yield self.reply
        yield from self.refused.values()

    @property
    def doubt(self) -> Reply | None:
        """A reply after which the message may still be accepted later; None: all replies are final."""
        if self.reply is not None:
            return self.reply if self.reply.verdict is Verdict.DOUBT else None
        uncertain = (Verdict.DOUBT, Verdict.FULL)
        return next((reply for reply in self.refused.values() if reply.verdict in uncertain), None)

    @property
    def is_lost(self) -> bool:
        """The connection was lost. If this was after the final dot, the message may have arrived."""
        return isinstance(self.error, smtplib.SMTPServerDisconnected)

    @property
    def is_hang_up(self) -> bool:
        """The server closed the connection before the final dot."""
        return self.reply is not None and self.reply.code == _CLOSING and self.reply.step != "dot"
