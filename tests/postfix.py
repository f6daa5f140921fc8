"""A temporary Postfix for the tests: on loopback only, with one port for each limit.

It accepts and discards mail for every address, except for those that begin with "dead", which it refuses as unknown.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

#: By port name, the maximum number of smtpd processes ("-": the default) and the options of smtpd.
PORTS: dict[str, tuple[str, dict[str, str]]] = {
    "plain": ("-", {}),
    "patient": ("-", {"smtpd_error_sleep_time": "0s"}),
    "messages": ("-", {"smtpd_client_message_rate_limit": "30"}),
    "recipients": ("-", {"smtpd_client_recipient_rate_limit": "30"}),
    "strangers": ("-", {"smtpd_client_restrictions": "reject"}),
    "login": ("-", {"smtpd_sender_restrictions": "check_sender_access,regexp:{directory}/senders"}),
    "two connections": ("-", {"smtpd_client_connection_count_limit": "2"}),
    "five connections a minute": ("-", {"smtpd_client_connection_rate_limit": "5"}),
    "two processes": ("2", {}),
}
_MAIN = """
compatibility_level = 3.6
queue_directory = {directory}/spool
data_directory = {directory}/data
maillog_file = {directory}/postfix.log
maillog_file_prefixes = {directory}
myhostname = mx.example.test
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
default_transport = discard:
relay_transport = discard:
local_transport = discard:
smtpd_relay_restrictions = permit_mynetworks, reject
smtpd_recipient_restrictions = check_recipient_access regexp:{directory}/recipients
smtpd_client_event_limit_exceptions =
smtpd_client_connection_count_limit = 100
"""
_SERVICES = """
cleanup   unix  n       -       n       -       0       cleanup
qmgr      unix  n       -       n       300     1       qmgr
rewrite   unix  -       -       n       -       -       trivial-rewrite
bounce    unix  -       -       n       -       0       bounce
defer     unix  -       -       n       -       0       bounce
trace     unix  -       -       n       -       0       bounce
discard   unix  -       -       n       -       -       discard
proxymap  unix  -       -       n       -       -       proxymap
anvil     unix  -       -       n       -       1       anvil
tlsmgr    unix  -       -       n       1000?   1       tlsmgr
postlog   unix-dgram n  -       n       -       1       postlogd
"""


def reason_to_skip() -> str:
    """Return why Postfix cannot run here; "" if it can."""
    if not os.environ.get("TEST_POSTFIX"):
        return "TEST_POSTFIX is not set: tox run -e postfix"
    if shutil.which("postfix") is None:
        return "Postfix is not installed"
    return "" if os.geteuid() == 0 else "Postfix needs root"


class Postfix:
    """A context manager that starts and stops Postfix."""

    def __enter__(self) -> Postfix:
        self._temporary = tempfile.TemporaryDirectory(prefix="mailqueue-postfix-")
        self.directory = Path(self._temporary.name)
        self.directory.chmod(0o755)
        self.ports = {name: _free_port() for name in PORTS}
        self._configure()
        self._process = self._start()
        return self

    def __exit__(self, *args: Any) -> None:
        self.stop()
        self._temporary.cleanup()

    def stop(self) -> None:
        """Abort Postfix and its connections. May be called again."""
        if self._process.poll() is None:
            subprocess.run(["postfix", "-c", self._config, "abort"], check=False, capture_output=True)
            self._process.wait(timeout=30)

    def count(self, name: str, words: str) -> int:
        """Return the number of lines in the log of a port that contain these words."""
        prefix = f"{_log_name(name)}/smtpd["
        lines = (self.directory / "postfix.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return sum(prefix in line and words in line for line in lines)

    def _configure(self) -> None:
        for name in ("spool", "data", "etc"):
            (self.directory / name).mkdir()
        shutil.chown(self.directory / "data", "postfix")
        self._config = str(self.directory / "etc")
        Path(self._config, "main.cf").write_text(_MAIN.format(directory=self.directory), encoding="utf-8")
        Path(self.directory, "recipients").write_text("/^dead/ 550 5.1.1 No such user here\n", encoding="utf-8")
        Path(self.directory, "senders").write_text("/./ 530 5.7.0 Authentication required\n", encoding="utf-8")
        services = [_SERVICES]
        for name, (processes, options) in PORTS.items():
            services.append(f"127.0.0.1:{self.ports[name]} inet n - n - {processes} smtpd")
            services += [f"  -o {key}={value.format(directory=self.directory)}" for key, value in options.items()]
            services.append(f"  -o syslog_name={_log_name(name)}")
        Path(self._config, "master.cf").write_text("\n".join(services) + "\n", encoding="utf-8")

    def _start(self) -> subprocess.Popen[bytes]:
        process = subprocess.Popen(
            ["postfix", "-c", self._config, "start-fg"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + 30
        while not all(map(_answers, self.ports.values())):
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(
                    "Postfix does not start: " + subprocess.getoutput(f"postfix -c {self._config} check")
                )
            time.sleep(0.1)
        return process


def _log_name(name: str) -> str:
    return f"tests-{name.replace(' ', '-')}"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


def _answers(port: int) -> bool:
    """Return whether the port is in use. Does not connect, since a connection would count towards the limits."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return True
        return False
