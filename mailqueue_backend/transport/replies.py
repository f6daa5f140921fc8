"""Reads an SMTP server's replies line by line, and believes whole lines only."""

from __future__ import annotations

import socket
import ssl

#: Bytes of one reply, all its lines together, at most.
REPLY_SIZE = 64 * 1024
_CHUNK = 8192


class Replies:
    """The file that smtplib reads replies from, over a socket.

    What is wrong with a reply raises an OSError, which smtplib takes for a lost connection: a line that the
    end of the connection cuts short ("250 o") is no answer, nor is one that does not end.
    """

    def __init__(self, source: socket.socket) -> None:
        self._source = source
        self._buffer = bytearray()
        self._ended = False
        #: Bytes that the reply may still have; whoever begins to read one sets it to REPLY_SIZE.
        self.budget = REPLY_SIZE

    def readline(self, limit: int) -> bytes:
        """Read a line of less than ``limit`` bytes, with its end; b"" at the end of the connection."""
        while (end := self._buffer.find(b"\n") + 1) == 0 and len(self._buffer) < limit:
            chunk = self._source.recv(_CHUNK)
            if not chunk:
                self._ended = True
                if self._buffer:
                    raise ConnectionError("it ended within a reply")
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
        """Return what has come that nobody has asked for, without waiting."""
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
        """Return whether nothing has come, not even the end of the connection."""
        return not (self.surplus() or self._ended)

    def close(self) -> None:
        """Forget what was not read; the socket is smtplib's."""
        self._buffer.clear()
