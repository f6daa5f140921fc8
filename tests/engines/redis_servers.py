"""Redis servers that can be stopped, and addresses at which no Redis server answers."""

from __future__ import annotations

import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

#: Whether tests can start a private server.
INSTALLED = shutil.which("redis-server") is not None


class OwnRedis:
    """A private redis-server with a temporary directory and a password."""

    password = "s3cret-w0rd"

    def __init__(self, *options: str) -> None:
        self._directory = tempfile.TemporaryDirectory()
        self.directory = Path(self._directory.name)
        self.port = free_port()
        self._options = options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        settings = ["--port", str(self.port), "--requirepass", self.password, "--appendonly", "yes", "--save", ""]
        self.process = subprocess.Popen(
            ["redis-server", *settings, "--dir", str(self.directory), "--logfile", "redis.log", *self._options]
        )
        deadline = time.monotonic() + 10
        while "eady to accept connections" not in self._log():
            assert self.process.poll() is None, self._log()
            assert time.monotonic() < deadline, self._log()
            time.sleep(0.01)

    def _log(self) -> str:
        path = self.directory / "redis.log"
        return path.read_text() if path.exists() else ""

    def stop(self) -> None:
        self.pause(signal.SIGCONT)
        while True:
            self.process.terminate()  # ignored while the server writes its first append-only file
            try:
                self.process.wait(timeout=1)
                break
            except subprocess.TimeoutExpired:
                continue
        (self.directory / "redis.log").unlink()

    def pause(self, how: int = signal.SIGSTOP) -> None:
        self.process.send_signal(how)

    def close(self) -> None:
        self.stop()
        self._directory.cleanup()


class Proxy:
    """Forwards to a Redis server and can drop an answer: the command is carried out, but the client never learns it."""

    def __init__(self, target: str) -> None:
        self.target = target
        #: Drop the answer to the next command that contains these bytes.
        self.lose: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        # Closing alone does not wake the thread.
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        host, port = self.target.rsplit(":", 1)
        losing = False
        with client, socket.create_connection((host, int(port))) as server, suppress(OSError):
            while True:
                # A long command arrives in pieces; the server answers only after the last one.
                readable, _, _ = select.select([client, server], [], [])
                if client in readable:
                    command = client.recv(65536)
                    if self.lose and self.lose in command:
                        self.lose, losing = None, True
                    server.sendall(command)
                    if not command:
                        return
                if server in readable:
                    answer = server.recv(65536)
                    if losing or not answer:
                        return
                    client.sendall(answer)


def free_port() -> int:
    """Return a port on which no server listens."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port: int = unused.getsockname()[1]
    return port


@contextmanager
def listening(*, black_hole: bool) -> Iterator[str]:
    """Yield the address of a listener that accepts and never answers, or one that drops all packets."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0 if black_hole else 10)
        for _ in range(4 if black_hole else 0):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        yield "{}:{}".format(*listener.getsockname())
