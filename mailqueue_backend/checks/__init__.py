"""System checks: report wrong settings before any mail is queued. Importing this module registers them.

``manage.py check --tag mailqueue`` selects them. Most run with every command. Those that ask the database run with
``--database`` only, as all of Django's do. Those that ask a server, or advise rather than report a fault, run with
``--deploy`` only.
"""

from __future__ import annotations

from django.core.checks import Tags, register

from .clock import check_clock
from .database import check_alias, check_router, check_table
from .engine import check_dummy, check_queue
from .mailers import check_mailers, check_relay
from .redis import check_redis_address, check_redis_permissions
from .settings import check_log, check_names, check_ranges, check_settings
from .sqlite import check_sqlite_journal, check_sqlite_transactions

#: The tag of all checks of this package.
TAG = "mailqueue"

SETTINGS = (check_settings, check_ranges, check_names, check_log)
QUEUES = (check_queue, check_dummy, check_alias, check_router, check_redis_address)
MAILERS = (check_mailers, check_relay)
DEPLOY = (check_sqlite_transactions, check_sqlite_journal, check_redis_permissions, check_clock)

for check in (*SETTINGS, *QUEUES, *MAILERS):
    register(check, Tags.compatibility, TAG)
register(check_table, Tags.database, TAG)
for check in DEPLOY:
    register(check, TAG, deploy=True)
