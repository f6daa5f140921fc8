"""Classify a server's reply: does it concern the message, one recipient, or the site itself?

The enhanced status code (RFC 3463; qmail writes it as ``(#5.1.1)``) takes precedence over the basic code. Only an
unambiguous refusal is final. After any other, the message is tried again until it expires.
"""

from __future__ import annotations

import re
from enum import Enum
from typing import Literal, NamedTuple

#: What the server replied to. "block": part of the message body. "dot": the final dot. "HTTP": a mail service's API.
Step = Literal["MAIL", "RCPT", "DATA", "block", "dot", "HTTP"]

_ENHANCED = re.compile(r"^\s*([245]\.\d{1,3}\.\d{1,3})\b|\(#([245]\.\d{1,3}\.\d{1,3})\)")
#: Words in a reply to RCPT that show that it may concern the sender, the site or its account.
_ABOUT_THE_SITE = (
    r"sender|relay|verif|authenti|domain|limit|quota|exceed|\brate\b|too (many|much|fast)|block|blacklist|spam"
)
#: Words in a reply to the final dot that show that it may concern the account, not only the content.
_LIMITED = re.compile(r"limit|quota|\brate\b|exceed|throttl|too (many|much|fast)|verif|suspen", re.IGNORECASE)


class Verdict(Enum):
    """What a reply means for this message and the next ones."""

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
        """The enhanced status code, such as "5.1.1"; "" if the reply has none."""
        found = _ENHANCED.search(self.text)
        return (found[1] or found[2]) if found else ""

    @property
    def verdict(self) -> Verdict:
        """The verdict of the first row of the table that matches; DOUBT if none does."""
        key = f"{self.code} {self.enhanced or '-'}"
        for row in _TABLE:
            if row.matches(self.step, key, self.text):
                return row.verdict
        return Verdict.DOUBT

    @property
    def incriminates(self) -> bool:
        """Whether it may concern the site's account; False for a permanent refusal of the content alone."""
        if self.step != "dot" or self.code < 500:
            return True
        is_about_content = not self.enhanced or self.enhanced.startswith("5.7.")
        return not is_about_content or bool(_LIMITED.search(self.text))

    def __str__(self) -> str:
        first, *others = self.text.splitlines() or [""]
        lines = [first, *(line.removeprefix(self.enhanced) for line in others)]
        return f"{self.code} {' '.join(' '.join(lines).split())}"


class _Row(NamedTuple):
    """One row of the table. The patterns ignore case."""

    steps: str
    #: Must match all of ``code enhanced``; "-" stands for no enhanced code.
    reply: str
    verdict: Verdict
    #: Must be found in the text.
    says: str = ""
    #: Must not be found in the text; the default matches nothing.
    unless: str = r"(?!)"

    def matches(self, step: Step, key: str, text: str) -> bool:
        return (
            step in self.steps.split()
            and re.fullmatch(self.reply, key) is not None
            and re.search(self.says, text, re.IGNORECASE) is not None
            and re.search(self.unless, text, re.IGNORECASE) is None
        )


#: Words that show that the recipient does not exist.
_UNKNOWN = r"unknown|no such|not exist|not found|unrouteable"
#: The first row that matches decides.
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
