"""A minimal SMTP server that delays its replies, as a network does.

It answers commands that arrive together after a single delay, which stands for one round trip. It prints its port when
it listens, serves until its stdin ends, and then prints the number of messages it has received.
"""

from __future__ import annotations

import socket
import ssl
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Iterator
from contextlib import suppress
from threading import Thread

#: The last bytes of each message received. Appending is thread-safe.
received: list[bytes] = []


class Session:
    """One client connection."""

    def __init__(self, connection: socket.socket, options: Namespace, context: ssl.SSLContext | None) -> None:
        self.connection = connection
        self.delay = options.delay
        self.context = context
        self.extensions = ["localhost", *["PIPELINING"] * options.pipelining, "SIZE"]
        self.buffer = b""
        self.in_body = self.starting_tls = self.ended = False

    def run(self) -> None:
        """Greet the client, then reply until it disconnects."""
        with suppress(OSError), self.connection:
            self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.send(b"220 ready\r\n")
            while not self.ended and (chunk := self.connection.recv(65536)):
                self.buffer += chunk
                self.send(b"".join(self.answers()))
                if self.starting_tls:
                    self.start_tls()

    def send(self, replies: bytes) -> None:
        """Send replies after the delay."""
        if replies:
            time.sleep(self.delay)
            self.connection.sendall(replies)

    def answers(self) -> Iterator[bytes]:
        """Consume complete commands and bodies from the buffer, and yield the reply to each."""
        while True:
            part, end, rest = self.buffer.partition(b"\r\n.\r\n" if self.in_body else b"\r\n")
            if not end:
                return
            self.buffer = rest
            if self.in_body:
                received.append(part[-20:])
                self.in_body = False
                yield b"250 stored\r\n"
            else:
                yield self.answer(part[:4].upper())

    def answer(self, verb: bytes) -> bytes:
        """Execute a command and return the reply."""
        if verb == b"EHLO":
            *first, last = [*self.extensions, *self.security()]
            return "".join([*(f"250-{word}\r\n" for word in first), f"250 {last}\r\n"]).encode()
        if verb == b"DATA":
            self.in_body = True
            return b"354 go ahead\r\n"
        if verb == b"AUTH":
            return b"235 welcome\r\n"
        if verb == b"STAR":
            self.starting_tls = True
            return b"220 go ahead\r\n"
        if verb == b"QUIT":
            self.ended = True
            return b"221 goodbye\r\n"
        return b"250 ok\r\n"

    def security(self) -> list[str]:
        """Return the extension for STARTTLS, or under TLS, for the login."""
        if self.context is None:
            return []
        return ["AUTH PLAIN"] if isinstance(self.connection, ssl.SSLSocket) else ["STARTTLS"]

    def start_tls(self) -> None:
        """Perform the TLS handshake, which takes another round trip."""
        assert self.context is not None
        time.sleep(self.delay)
        self.connection = self.context.wrap_socket(self.connection, server_side=True)
        self.starting_tls = False


def serve(listener: socket.socket, options: Namespace) -> None:
    """Accept connections, and start a thread for each."""
    context = None
    if options.certificate:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(options.certificate)
    while True:
        connection, _ = listener.accept()
        Thread(target=Session(connection, options, context).run, daemon=True).start()


def main() -> None:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--delay", type=float, default=0.005, metavar="SECONDS")
    parser.add_argument("--pipelining", action="store_true", help="announce PIPELINING")
    parser.add_argument("--certificate", metavar="FILE", help="announce STARTTLS; the file also contains the key")
    options = parser.parse_args()
    listener = socket.create_server(("127.0.0.1", 0), backlog=100)
    print(listener.getsockname()[1], flush=True)
    Thread(target=serve, args=[listener, options], daemon=True).start()
    sys.stdin.read()
    print(len(received))


if __name__ == "__main__":
    main()
