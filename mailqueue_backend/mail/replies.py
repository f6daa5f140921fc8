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
        self._budget = REPLY_SIZE
        self._ended = False

    def begin(self) -> None:
        """The next line begins a reply."""
        self._budget = REPLY_SIZE

    def readline(self, limit: int) -> bytes:
        """Read a line of less than ``limit`` bytes, with its end; b"" at the end of the connection."""
        while (end := self._buffer.find(b"\n") + 1) == 0:
            if len(self._buffer) >= limit:
                break
            if not self._receive():
                if self._buffer:
                    raise ConnectionError("it ended within a reply")
                return b""
        if not 0 < end < limit:
            raise ConnectionError("a line of a reply is too long")
        line = bytes(self._buffer[:end])
        del self._buffer[:end]
        self._budget -= end
        if self._budget < 0:
            raise ConnectionError("a reply is too long")
        return line

    def _receive(self) -> bool:
        chunk = self._source.recv(_CHUNK)
        self._buffer += chunk
        self._ended = not chunk
        return bool(chunk)

    def surplus(self) -> bool:
        """Tell whether something has come that nobody has asked for."""
        self._look()
        return bool(self._buffer)

    def out_of_step(self) -> bool:
        """Tell the same, but for a server that says that it closes, which it may do at any time."""
        return self.surplus() and not self._buffer.startswith(b"421")

    def quiet(self) -> bool:
        """Tell whether nothing has come, not even the end of the connection."""
        return not (self.surplus() or self._ended)

    def _look(self) -> None:
        """Receive what is there, without waiting."""
        timeout = self._source.gettimeout()
        try:
            self._source.settimeout(0)
            self._receive()
        except (BlockingIOError, ssl.SSLWantReadError):
            pass
        except OSError:
            self._ended = True
        finally:
            self._source.settimeout(timeout)

    def close(self) -> None:
        """Forget what was not read; the socket is smtplib's."""
        self._buffer.clear()
