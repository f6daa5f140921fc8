"""Sockets that a deadline can shut down at any time, even while they connect or negotiate TLS."""

from __future__ import annotations

import smtplib
import socket
from contextlib import AbstractContextManager
from typing import Any, Protocol

#: The error of a connection whose deadline has passed.
TIME_IS_OVER = "The time for this message is over"


class Deadline(Protocol):
    """The deadline of a connection, as delivery.deadlines implements it."""

    @property
    def fired(self) -> bool:
        """The deadline has passed."""

    def hold(self, held: socket.socket) -> None:
        """Shut this socket down when the deadline passes, or now if it has."""

    def release(self) -> None:
        """Close the held socket, if any."""

    def extend_for_dot(self) -> None:
        """Allow for the reply to the final dot, which is about to be sent."""

    def shortened(self, seconds: float) -> AbstractContextManager[None]:
        """Limit the block to ``seconds``, or less if the deadline is earlier."""


class DeadlineSMTP(smtplib.SMTP):
    """smtplib's SMTP, with a deadline that applies even while the socket connects.

    The deadline holds a duplicate of the socket, which remains valid when TLS wraps the original.
    """

    _deadline: Deadline

    def _get_socket(self, host: str, port: int, timeout: float) -> socket.socket:
        """Connect as socket.create_connection() does. The deadline does not cover name resolution."""
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
        if isinstance(timeout, (int, float)):  # otherwise, a sentinel for the default timeout
            connecting.settimeout(timeout)
        if self.source_address:
            connecting.bind(self.source_address)
        if not self._deadline.fired:
            connecting.connect(address)
        if self._deadline.fired:
            raise TimeoutError(TIME_IS_OVER)
        # Without TCP_NODELAY, the final dot may wait for the acknowledgement of earlier data.
        connecting.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        """Close the socket and its duplicate: the connection stays open while either is."""
        super().close()
        self._deadline.release()
