"""Reading replies: only complete lines are accepted."""

from __future__ import annotations

import socket
import ssl
from threading import Thread

from django.test import SimpleTestCase

from mailqueue_backend.transport.replies import REPLY_SIZE, Replies
from tests.certificates import client_context, needs_openssl, server_context

LIMIT = 8193


class RepliesTestCase(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.near, self.far = socket.socketpair()
        self.near.settimeout(5)
        self.addCleanup(self.near.close)
        self.addCleanup(self.far.close)
        self.replies = Replies(self.near)

    def read(self) -> bytes:
        return self.replies.readline(LIMIT)


class LineTests(RepliesTestCase):
    def test_lines_are_read_in_order_however_they_are_split(self) -> None:
        self.far.sendall(b"250-a\r\n250 b\r\n3")
        self.assertEqual([self.read(), self.read()], [b"250-a\r\n", b"250 b\r\n"])
        self.far.sendall(b"54 c\n")
        self.assertEqual(self.read(), b"354 c\n")

    def test_end_of_the_connection(self) -> None:
        self.far.close()
        self.assertEqual(self.read(), b"")

    def test_truncated_last_line_is_an_error(self) -> None:
        self.far.sendall(b"250 a\r\n250 o")
        self.far.close()
        self.assertEqual(self.read(), b"250 a\r\n")
        for _ in range(2):
            self.assertRaisesMessage(ConnectionError, "within a reply", self.read)

    def test_line_that_is_just_short_enough(self) -> None:
        line = b"250 " + b"x" * (LIMIT - 7) + b"\r\n"
        self.far.sendall(line)
        self.assertEqual((self.read(), len(line)), (line, LIMIT - 1))

    def test_line_that_is_too_long(self) -> None:
        for line in (b"250 " + b"x" * 9000 + b"\r\n", b"250 " + b"x" * (LIMIT - 6) + b"\r\n", b"x" * LIMIT):
            with self.subTest(length=len(line)):
                self.replies = Replies(self.near)
                self.far.sendall(line)
                self.assertRaisesMessage(ConnectionError, "too long", self.read)
                self.near.setblocking(False)
                with self.assertRaises(BlockingIOError):
                    while True:
                        self.near.recv(LIMIT)
                self.near.settimeout(5)

    def test_reply_that_does_not_end(self) -> None:
        line = b"250-" + b"x" * 1018 + b"\r\n"
        with self.assertRaisesMessage(ConnectionError, "a reply is too long"):
            for _ in range(REPLY_SIZE // len(line) + 1):
                self.far.sendall(line)
                self.read()

    def test_size_limit_applies_to_each_reply(self) -> None:
        line = b"250-" + b"x" * 1018 + b"\r\n"
        for _ in range(2 * REPLY_SIZE // len(line)):
            self.far.sendall(line)
            self.replies.budget = REPLY_SIZE
            self.assertEqual(self.read(), line)


class SurplusTests(RepliesTestCase):
    def test_nothing_has_arrived(self) -> None:
        self.assertFalse(self.replies.surplus())
        self.assertTrue(self.replies.quiet())
        self.assertEqual(self.near.gettimeout(), 5)

    def test_something_has_arrived(self) -> None:
        for sent in (b"250 a\r\n", b"2", b"421 bye\r\n"):
            with self.subTest(sent=sent):
                self.far.sendall(sent)
                self.assertEqual(self.replies.surplus(), sent)
                self.assertFalse(self.replies.quiet())
                self.replies.close()

    def test_buffered_bytes_count(self) -> None:
        self.far.sendall(b"250 a\r\n250 b\r\n")
        self.read()
        self.assertTrue(self.replies.surplus())

    def test_end_of_the_connection(self) -> None:
        self.far.close()
        self.assertFalse(self.replies.surplus())
        self.assertFalse(self.replies.quiet())

    def test_connection_that_is_shut_down(self) -> None:
        self.near.shutdown(socket.SHUT_RDWR)
        self.assertFalse(self.replies.quiet())


@needs_openssl
class EncryptedTests(SimpleTestCase):
    def test_surplus_and_quiet_do_not_block(self) -> None:
        near, far = socket.socketpair()
        near.settimeout(5)
        far.settimeout(5)
        server = Thread(target=lambda: self.serve(far))
        server.start()
        with client_context().wrap_socket(near, server_hostname="127.0.0.1") as wrapped:
            replies = Replies(wrapped)
            self.assertEqual(replies.readline(LIMIT), b"220 a\r\n")
            self.assertTrue(replies.quiet())
            wrapped.sendall(b"x")
            self.assertEqual(replies.readline(LIMIT), b"250 b\r\n")
            self.assertTrue(replies.surplus())
            server.join()
            self.assertEqual(replies.readline(LIMIT), b"250 c\r\n")
            self.assertFalse(replies.surplus() or replies.quiet())

    def serve(self, far: socket.socket) -> None:
        with server_context().wrap_socket(far, server_side=True) as wrapped:
            wrapped.sendall(b"220 a\r\n")
            wrapped.recv(1)
            wrapped.sendall(b"250 b\r\n250 c\r\n")
            self.assertIsInstance(wrapped, ssl.SSLSocket)
