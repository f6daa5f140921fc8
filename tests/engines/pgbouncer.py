"""A private pgbouncer in front of the PostgreSQL server, in transaction mode."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from tests import services
from tests.engines.redis_servers import free_port

#: The path of pgbouncer; None if it is not installed. Debian puts it into a directory for root's commands.
PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")

_CONFIGURATION = """
[databases]
* = host={host} port={server_port} {login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 2
"""


class PgBouncer:
    """Gives all its clients two connections to the server; each transaction gets any of them."""

    def __init__(self, user: str, password: str) -> None:
        self.port = free_port()
        self._directory = tempfile.TemporaryDirectory()
        os.chmod(self._directory.name, 0o755)
        host, server_port = services.POSTGRESQL.rsplit(":", 1)
        login = f"user={user}" + (f" password={password}" if password else "")
        path = Path(self._directory.name, "pgbouncer.ini")
        path.write_text(_CONFIGURATION.format(host=host, server_port=server_port, login=login, port=self.port))
        # It refuses to run as root.
        as_user = ["-u", "nobody"] if os.geteuid() == 0 else []
        program = PROGRAM or "pgbouncer"
        self._process = subprocess.Popen([program, "-q", *as_user, str(path)], stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 10
        while not self._answers():
            assert self._process.poll() is None, "pgbouncer has exited"
            assert time.monotonic() < deadline, "pgbouncer does not answer"
            time.sleep(0.02)

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._directory.cleanup()
