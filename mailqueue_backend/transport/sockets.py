"""Sockets that a deadline can shut down at any time: while they connect, shake hands, and after that."""

from __future__ import annotations

import smtplib
import socket
from contextlib import AbstractContextManager
from typing import Any, Protocol


class Deadline(Protocol):
    """The end of the time that a connection has; delivery.deadlines has the one that a watchdog keeps."""

    @property
    def fired(self) -> bool:
        """The time is over."""

    def hold(self, held: socket.socket) -> None:
        """Shut this socket down when the time is over; now, if it is."""

    def release(self) -> None:
        """Close the socket that is held, if any."""

    def extend_for_dot(self) -> None:
        """Leave the server more time to answer: the whole message is about to be sent."""

    def shortened(self, seconds: float) -> AbstractContextManager[None]:
        """Leave so many seconds, or less, to a block."""


class DeadlineSMTP(smtplib.SMTP):
    """smtplib's SMTP, whose socket is under a deadline before it connects.

    The deadline holds a duplicate of the socket, which stays what it is when TLS wraps the original.
    """

    _deadline: Deadline

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect as socket.create_connection() does. Only the look-up of the name has no deadline."""
        failure = OSError(f"{host} has no address")
        for family, kind, protocol, _, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
            connecting = socket.socket(family, kind, protocol)
            connected = False
            try:
                self._connect(connecting, address, timeout)
                connected = True
            except OSError as error:
                failure = error
            finally:
                if not connected:
                    connecting.close()
            if connected:
                return connecting
        self._deadline.release()
        raise failure

    def _connect(self, connecting: socket.socket, address: Any, timeout: float) -> None:
        self._deadline.hold(connecting.dup())
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

    def close(self) -> None:
        """Close the connection; the server learns of it only when the duplicate is closed as well."""
        super().close()
        self._deadline.release()
