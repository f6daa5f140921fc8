"""The tests, grouped by what they need. Modules that several groups use are in this directory.

unit/      no server
wire/      an SMTP server in this process
engines/   the queues' servers: PostgreSQL, MariaDB, Redis
process/   child processes, or third-party packages
dashboard/      the pages of the optional app, with Django's test client
browser/        the same pages in Chromium
documentation/  the code, commands and output that the documentation shows
kill/      drains that are killed: ``python -m tests.kill``
sites/     small sites, one for each kind of settings: ``python -m tests.sites``
payloads/  payloads that 0.1.2 wrote under many versions of Python and Django
"""

from pathlib import Path

#: The project's directory.
TOP = Path(__file__).resolve().parents[1]
PAYLOADS = TOP / "tests" / "payloads"
