"""The SMTP servers that the contenders deliver to. Each is a process that counts the messages it receives."""

from __future__ import annotations

import os
import re
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import needs


class Server:
    """A running server, as a context manager that kills it at the end."""

    process: subprocess.Popen[str]
    port: int
    #: Additional environment variables of the process that delivers to it.
    variables: dict[str, str] = {}

    def __enter__(self) -> Server:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()

    def received(self) -> int:
        """Stop the server and return the number of messages it has received."""
        raise NotImplementedError


class DelayingServer(Server):
    """The server in delaying_server.py."""

    def __init__(self, directory: Path, options: Sequence[str | Path] = ()) -> None:
        script = Path(__file__).with_name("delaying_server.py")
        pipe = subprocess.PIPE
        self.process = subprocess.Popen([sys.executable, script, *options], stdin=pipe, stdout=pipe, text=True)
        assert self.process.stdout is not None
        self.port = int(self.process.stdout.readline())

    def received(self) -> int:
        return int(self.process.communicate(timeout=30)[0])


class TLSServer(DelayingServer):
    """The same server with STARTTLS and a login. Clients trust its certificate in addition to the system's."""

    def __init__(self, directory: Path, options: Sequence[str | Path] = ()) -> None:
        certificate, trusted = directory / "certificate.pem", directory / "trusted.pem"
        _make_certificate(certificate)
        system = ssl.get_default_verify_paths().cafile
        trusted.write_text(certificate.read_text() + (Path(system).read_text() if system else ""))
        super().__init__(directory, ["--certificate", certificate, *options])
        self.variables = {"SSL_CERT_FILE": str(trusted)}


def _make_certificate(path: Path) -> None:
    request = "req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    command: list[str | Path] = [
        needs.program("openssl", "openssl"),
        *request.split(),
        "-keyout",
        path,
        "-out",
        path.with_suffix(".crt"),
    ]
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + path.with_suffix(".crt").read_text())


class Sink(Server):
    """Postfix's smtp-sink, which is written in C and discards mail."""

    def __init__(self, directory: Path) -> None:
        program = needs.program("smtp-sink", "postfix")
        self.port = _free_port()
        self._output = directory / "sink.txt"
        user = ["-u", "nobody"] if os.geteuid() == 0 else []
        with self._output.open("w") as output:
            command: list[Any] = [program, *user, "-c", f"127.0.0.1:{self.port}", "1000"]
            self.process = subprocess.Popen(command, stdout=output, text=True)
        _wait_for(self.port)

    def received(self) -> int:
        time.sleep(0.2)
        self.process.terminate()
        self.process.wait()
        return int(re.findall(r"mesg=(\d+)", self._output.read_text())[-1])


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port)).close()
        except ConnectionRefusedError:
            time.sleep(0.05)
    raise TimeoutError(f"Nothing listens on port {port}")
