"""The tests, by what they need. What several of them use stands in this folder itself.

unit/      no server
wire/      an SMTP server in this process
engines/   the queues' own servers: PostgreSQL, MariaDB, Redis
process/   processes of their own, or other people's code
kill/      drains that are killed: ``python -m tests.kill``
sites/     small sites, one for each kind of settings: ``python -m tests.sites``
payloads/  what 0.1.2 wrote under many Pythons and Djangos
"""

from pathlib import Path

#: The project's directory.
TOP = Path(__file__).resolve().parents[1]
PAYLOADS = TOP / "tests" / "payloads"
