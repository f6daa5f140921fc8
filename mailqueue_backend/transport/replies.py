"""Read an SMTP server's replies line by line; accept only complete lines."""

from __future__ import annotations

import socket
import ssl

#: Maximum size of a reply, over all its lines, in bytes.
REPLY_SIZE = 64 * 1024
#: Bytes per recv().
_CHUNK = 8192


class Replies:
    """The file-like object over a socket from which smtplib reads replies.

    A malformed reply raises an OSError, which smtplib treats as a lost connection. A line is malformed if the
    connection ends within it ("250 o"), or if it is too long.
    """

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._buffer = bytearray()
        self._ended = False
        #: Bytes left for the current reply; the caller resets it to REPLY_SIZE before each reply.
        self.budget = REPLY_SIZE

    def readline(self, limit: int) -> bytes:
        """Read a line of less than ``limit`` bytes, including its end; return b"" at the end of the connection."""
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < limit:
            chunk = self._source.recv(_CHUNK)
            if not chunk:
                self._ended = True
                if self._buffer:
                    raise ConnectionError("the connection ended within a reply")
                return b""
            self._buffer += chunk
        if not 0 < end < limit:
            raise ConnectionError("a line of a reply is too long")
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self.budget -= end
        if self.budget < 0:
            raise ConnectionError("a reply is too long")
        return line

    def surplus(self) -> bytes:
        """Return all bytes received but not read yet, without waiting for more."""
        timeout = self._source.gettimeout()
        try:
            self._source.settimeout(0)
            chunk = self._source.recv(_CHUNK)
            self._buffer += chunk
            self._ended = not chunk
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self._ended = True
        finally:
            self._source.settimeout(timeout)
        return bytes(self._buffer)

    def quiet(self) -> bool:
        """Return whether there are no unread bytes and the connection has not ended."""
        return not (self.surplus() or self._ended)

    def close(self) -> None:
        """Discard unread bytes; the socket belongs to smtplib."""
        self._buffer.clear()
