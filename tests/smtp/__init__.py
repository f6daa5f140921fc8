"""SMTP servers that run in the test process.

server.py    ScriptedServer, which follows a script and keeps what it stores; FullServer, which accepts no connection
scripts.py   scripts: the server's action at each step
faults.py    actions at a step: replies, failures, delayed answers
cases.py     test cases that deliver to a scripted server
inbox.py     an inbox at EMAIL_HOST, served by aiosmtpd, an independent implementation
"""

from .faults import (
    Fault,
    Hold,
    Over,
    drip,
    endless,
    fin,
    garbage,
    hang,
    long_line,
    rst,
    say,
    stored_then,
    torn,
)
from .scripts import Action, Script, always, by_recipient, delayed, good, in_turn
from .server import FullServer, ScriptedServer, Session, Stored

__all__ = [
    "Action",
    "Fault",
    "FullServer",
    "Hold",
    "Over",
    "Script",
    "ScriptedServer",
    "Session",
    "Stored",
    "always",
    "by_recipient",
    "delayed",
    "drip",
    "endless",
    "fin",
    "garbage",
    "good",
    "hang",
    "in_turn",
    "long_line",
    "rst",
    "say",
    "stored_then",
    "torn",
]
