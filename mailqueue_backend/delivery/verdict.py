"""What a server's reply is about: this message, one recipient, or the site itself.

The enhanced status code (RFC 3463; qmail writes it as ``(#5.1.1)``) decides before the basic code does. Only what is
certain counts as final. Everything else leaves a doubt: the message is tried again until it expires.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Literal, NamedTuple

#: What the server replied to. "block": a part of the message. "dot": all of it. "HTTP": a request to a mail service.
Step = Literal["MAIL", "RCPT", "DATA", "block", "dot", "HTTP"]

_ENHANCED = re.compile(r"^\s*([245]\.\d{1,3}\.\d{1,3})\b|\(#([245]\.\d{1,3}\.\d{1,3})\)")
#: The words of a reply about the sender, the site or its account, whatever else it says.
_ABOUT_THE_SITE = (
    r"sender|relay|verif|authenti|domain|limit|quota|exceed|\brate\b|too (many|much|fast)|block|blacklist|spam"
)
#: The words of a reply to a message that is about the account and not about the content.
_LIMITED = re.compile(r"limit|quota|\brate\b|exceed|throttl|too (many|much|fast)|verif|suspen", re.IGNORECASE)


class Verdict(Enum):
    """What a reply means for the message, and for those that follow it."""

    BLOCKED = "the site's login or TLS settings: nothing can be sent"
    MESSAGE = "this message will never be accepted"
    RECIPIENT = "this recipient will never be accepted"
    FULL = "no more recipients in this transaction"
    DOUBT = "perhaps later"


class Reply(NamedTuple):
    """A reply to one step."""

    step: Step
    code: int
    text: str

    @property
    def enhanced(self) -> str:
        """The enhanced status code, such as "5.1.1"; "" where there is none."""
        found = _ENHANCED.search(self.text)
        return (found[1] or found[2]) if found else ""

    @property
    def verdict(self) -> Verdict:
        """What it is about, by the first row that fits."""
        key = f"{self.code} {self.enhanced or '-'}"
        for row in _TABLE:
            if row.fits(self.step, key, self.text):
                return row.verdict
        return Verdict.DOUBT

    @property
    def incriminates(self) -> bool:
        """Whether it may be about the site's account; a server that refuses a content says nothing of the account."""
        if self.step != "dot" or self.code < 500:
            return True
        is_about_content = not self.enhanced or self.enhanced.startswith("5.7.")
        return not is_about_content or bool(_LIMITED.search(self.text))

    def __str__(self) -> str:
        first, *others = self.text.splitlines() or [""]
        lines = [first, *(line.removeprefix(self.enhanced) for line in others)]
        return f"{self.code} {' '.join(' '.join(lines).split())}"


class _Row(NamedTuple):
    """One row of the table; the patterns are searched without regard to case."""

    steps: str
    #: Matches the whole of ``code enhanced``; "-" stands for no enhanced code.
    reply: str
    verdict: Verdict
    #: The text must have it.
    says: str = ""
    #: The text must not have it.
    unless: str = r"(?!)"

    def fits(self, step: Step, key: str, text: str) -> bool:
        return (
            step in self.steps.split()
            and re.fullmatch(self.reply, key) is not None
            and re.search(self.says, text, re.IGNORECASE) is not None
            and re.search(self.unless, text, re.IGNORECASE) is None
        )


_UNKNOWN = r"unknown|no such|not exist|not found|unrouteable"
_TABLE = (
    _Row("MAIL RCPT DATA dot", r"53[0458] .*", Verdict.BLOCKED),
    _Row("MAIL dot", r"\d+ [45]\.(3\.4|2\.3)|552 -", Verdict.MESSAGE, unless="quota"),
    _Row("dot", r"5\d\d 5\.6\.\d+", Verdict.MESSAGE),
    _Row("HTTP", r"4(00|13|15|22) .*", Verdict.MESSAGE),
    _Row("RCPT", r"5\d\d 5\.1\.(1|2|3|6|10)", Verdict.RECIPIENT),
    _Row("RCPT", r"5\d\d 5\.2\.1", Verdict.RECIPIENT, unless=r"\brate\b"),
    _Row("RCPT", r"5\d\d 5\.4\.1", Verdict.RECIPIENT, says="recipient"),
    _Row("RCPT", r"55[013] -", Verdict.RECIPIENT, says=_UNKNOWN, unless=_ABOUT_THE_SITE),
    _Row("RCPT", r"\d+ [45]\.5\.3|(452|552) -", Verdict.FULL),
)
