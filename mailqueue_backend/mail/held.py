"""Connections that a deadline can cut at any time: while they connect, shake hands, and after that."""

from __future__ import annotations

import smtplib
import socket
import ssl
from typing import Any

from ..delivery.deadlines import Deadline


class HeldContext:
    """An SSL context whose handshake is under the deadline too."""

    def __init__(self, context: ssl.SSLContext, deadline: Deadline) -> None:
        self._context = context
        self._deadline = deadline

    def wrap_socket(self, plain: socket.socket, server_hostname: str | None = None) -> ssl.SSLSocket:
        """Wrap and shake hands."""
        wrapped = self._context.wrap_socket(plain, server_hostname=server_hostname, do_handshake_on_connect=False)
        self._deadline.hold(wrapped)
        try:
            wrapped.do_handshake()
        except BaseException:
            wrapped.close()
            raise
        return wrapped


class HeldSMTP(smtplib.SMTP):
    """smtplib's SMTP, whose socket is under the deadline before it connects."""

    _deadline: Deadline

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect as socket.create_connection() does. Only the look-up of the name has no deadline."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connecting = socket.socket(family, kind, protocol)
            try:
                self._connect(connecting, address, timeout)
            except OSError as error:
                connecting.close()
                failure = error
            else:
                return connecting
        raise failure

    def _connect(self, connecting: socket.socket, address: Any, timeout: float) -> None:
        self._deadline.hold(connecting)
        if isinstance(timeout, (int, float)):  # else it is smtplib's word for the default
            connecting.settimeout(timeout)
        if self.source_address:
            connecting.bind(self.source_address)
        if not self._deadline.fired:
            connecting.connect(address)
        if self._deadline.fired:
            raise TimeoutError("The time for this message is over")
        # The final dot must not wait for the acknowledgement of what goes before.
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
