"""Deadlines: wall-clock time for a message, whatever blocks."""

from __future__ import annotations

import gc
import math
import smtplib
import socket
import threading
import time
import warnings
from datetime import datetime
from typing import Any
from unittest import mock

from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.delivery.deadlines import Deadline, Watchdog
from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.mail.smtp import _CONNECTION_CLASSES, QueuedEmailBackend
from mailqueue_backend.transport.connection import DeliverySMTP
from tests import smtp
from tests.cases import message
from tests.certificates import client_context, needs_openssl, server_context
from tests.smtp import FullServer, ScriptedServer, always, in_turn
from tests.smtp.cases import ScriptedTestCase


class DeadlineTests(SimpleTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.held, self.other = socket.socketpair()
        self.addCleanup(self.held.close)
        self.addCleanup(self.other.close)
        self.other.settimeout(0.1)
        self.deadline = Deadline()
        self.deadline.hold(self.held)

    def assertCut(self) -> None:
        self.assertEqual(self.other.recv(1), b"")
        self.assertTrue(self.deadline.fired)

    def assertNotCut(self) -> None:
        self.assertRaises(TimeoutError, self.other.recv, 1)
        self.assertFalse(self.deadline.fired)

    def test_cut_when_time_is_up(self) -> None:
        self.deadline.start(10)
        self.deadline.fire_if_over(time.monotonic() + 11)
        self.assertCut()

    def test_not_cut_before(self) -> None:
        self.deadline.start(10)
        self.deadline.fire_if_over(time.monotonic() + 9)
        self.assertNotCut()

    def test_idle_connection_is_not_cut(self) -> None:
        self.deadline.fire_if_over(math.inf)
        self.deadline.start(10)
        self.deadline.clear()
        self.deadline.fire_if_over(math.inf)
        self.assertNotCut()

    def test_socket_that_comes_too_late_is_cut_at_once(self) -> None:
        late = Deadline()
        late.start(0)
        late.fire_if_over(math.inf)
        late.hold(self.held)
        self.assertEqual(self.other.recv(1), b"")

    def test_closed_socket_does_no_harm(self) -> None:
        self.held.close()
        self.deadline.start(0)
        self.deadline.fire_if_over(math.inf)
        self.assertTrue(self.deadline.fired)

    def test_socket_that_is_released_is_closed(self) -> None:
        self.deadline.release()
        self.assertEqual(self.held.fileno(), -1)
        self.assertEqual(self.other.recv(1), b"")

    def test_socket_that_was_held_before_is_closed(self) -> None:
        near, far = socket.socketpair()
        self.addCleanup(near.close)
        self.addCleanup(far.close)
        self.deadline.hold(near)
        self.assertEqual(self.other.recv(1), b"")
        self.deadline.start(10)
        self.deadline.fire_if_over(math.inf)
        self.assertEqual(far.recv(1), b"")

    def test_start_begins_anew(self) -> None:
        self.deadline.start(0)
        self.deadline.fire_if_over(math.inf)
        self.deadline.start(10)
        self.assertFalse(self.deadline.fired)

    def test_shortened_for_a_while(self) -> None:
        self.deadline.start(100)
        with self.deadline.shortened(5):
            self.deadline.fire_if_over(time.monotonic() + 6)
            self.assertCut()
        self.assertFalse(self.deadline.fired)
        self.deadline.fire_if_over(time.monotonic() + 99)
        self.assertFalse(self.deadline.fired)

    def test_never_longer_than_it_was(self) -> None:
        self.deadline.start(1)
        with self.deadline.shortened(5):
            self.deadline.fire_if_over(time.monotonic() + 2)
            self.assertCut()


class WatchdogTests(SimpleTestCase):
    def watchdog(self, stop: StopRequest) -> Watchdog:
        watchdog = Watchdog(stop)
        watchdog.start()
        self.addCleanup(watchdog.stop)
        return watchdog

    def test_fires_each_when_its_time_is_up(self) -> None:
        watchdog = self.watchdog(StopRequest())
        short, long = watchdog.new_deadline(), watchdog.new_deadline()
        short.start(0.05)
        long.start(60)
        time.sleep(0.5)
        self.assertEqual((short.fired, long.fired), (True, False))

    def test_fires_all_that_run_when_the_stop_is_forced(self) -> None:
        stop = StopRequest()
        watchdog = self.watchdog(stop)
        running, idle = watchdog.new_deadline(), watchdog.new_deadline()
        running.start(60)
        stop.ask()
        stop.ask()
        time.sleep(0.5)
        self.assertEqual((running.fired, idle.fired), (True, False))
        running.start(60)
        time.sleep(0.5)
        self.assertTrue(running.fired)

    def test_stop_ends_its_thread(self) -> None:
        before = set(threading.enumerate())
        watchdog = self.watchdog(StopRequest())
        (thread,) = set(threading.enumerate()) - before
        watchdog.stop()
        watchdog.stop()
        thread.join(5)
        self.assertFalse(thread.is_alive())


class HangTests(ScriptedTestCase):
    """Half the lease, and it is over: where the server says nothing, and where it says a byte a second."""

    def assertOver(self, backend: QueuedEmailBackend, seconds: float = 1) -> None:
        self.enqueue("a")
        began = time.monotonic()
        with override_settings(MAIL_QUEUE_LEASE=2 * seconds):
            self.assertEqual((self.failing_drain(backend).sent, len(self.queue)), (0, 1))
        self.assertLess(time.monotonic() - began, seconds + 2)
        self.queue.read_many(9)

    def secure(self, **kwargs: Any) -> QueuedEmailBackend:
        backend = self.backend(username="user", password="secret", timeout=60, **kwargs)
        backend.ssl_context = client_context()
        return backend

    def test_while_it_connects(self) -> None:
        self.smtp = self.enterContext(FullServer())  # type: ignore[assignment]
        self.assertOver(self.backend(timeout=60))

    @tag("slow")
    @needs_openssl
    def test_at_each_step(self) -> None:
        for step in ("banner", "EHLO", "STARTTLS", "TLS", "AUTH", "MAIL", "RCPT", "DATA", "dot"):
            for fault in (smtp.hang, smtp.drip):
                with self.subTest(step=step, fault=fault.__name__):
                    self.serve(always(step, fault), extensions=["AUTH PLAIN"], context=server_context())
                    self.assertOver(self.secure(use_tls=True), 0.5)

    @needs_openssl
    def test_handshake_of_smtp_over_ssl(self) -> None:
        self.serve(always("TLS", smtp.hang), context=server_context(), over_ssl=True)
        self.assertOver(self.secure(use_ssl=True))

    @tag("slow")
    def test_quit(self) -> None:
        for fault in (smtp.hang, smtp.drip, smtp.endless):
            with self.subTest(fault=fault.__name__):
                self.serve(in_turn(QUIT=[fault]))
                self.enqueue("a")
                began = time.monotonic()
                self.assertEqual(self.drain(self.backend(timeout=60)).sent, 1)
                self.assertLess(time.monotonic() - began, 7)

    def test_reply_that_never_ends(self) -> None:
        self.serve(always("MAIL", smtp.endless))
        self.assertOver(self.backend(timeout=60))

    def test_time_out_of_a_drain_is_not_kept(self) -> None:
        self.serve()
        self.enqueue("a")
        backend = self.backend(timeout=None)
        self.assertEqual((self.drain(backend).sent, backend.timeout), (1, None))

    def timeouts(self, timeout: float | None) -> dict[str, set[float | None]]:
        """Deliver a message, and return how long its connection waited for what, at most."""
        found: dict[str, set[float | None]] = {}

        class Noting(DeliverySMTP):
            def getreply(self) -> Any:
                answer = super().getreply()
                self.note(self.transcript.step if self.in_transaction else "other")
                return answer

            def send(self, s: Any) -> None:
                super().send(s)
                if self.transcript.step == "block":
                    self.note("block")

            def note(self, step: str) -> None:
                found.setdefault(step, set()).add(self.sock and self.sock.gettimeout())

        self.serve()
        big = message("a")
        big.attach("big.bin", bytes(200_000), "application/octet-stream")
        self.backend().send_messages([big])
        with mock.patch.dict(_CONNECTION_CLASSES, {smtplib.SMTP: Noting}):
            self.assertEqual(self.drain(self.backend(timeout=timeout)).sent, 1)
        return found

    def test_without_a_timeout_each_step_may_take_as_long_as_rfc_5321_has_it(self) -> None:
        expected = {"other": {300}, "MAIL": {300}, "RCPT": {300}, "DATA": {120}, "block": {180}, "dot": {600}}
        self.assertEqual(self.timeouts(None), expected)

    def test_timeout_of_the_site_is_that_of_every_step(self) -> None:
        self.assertEqual(set().union(*self.timeouts(7).values()), {7})

    @override_settings(MAIL_QUEUE_LEASE=1)
    def test_next_message_has_time_of_its_own(self) -> None:
        self.serve(in_turn(MAIL=[smtp.hang]))
        self.enqueue("a", "b")
        report = self.failing_drain(self.backend(timeout=60))
        self.assertEqual((report.sent, report.requeued), (1, 1))
        self.assertIn("The time for this message is over", self.left()[0]["last_error"])

    @override_settings(MAIL_QUEUE_LEASE=0.4)
    def test_hook_that_is_slow_does_not_make_the_server_unreachable(self) -> None:
        class Slow(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, *args: Any) -> Any:
                if email_message.subject == "a":
                    time.sleep(0.6)
                return super()._send_queued_messages(email_message, *args)

        self.serve()
        self.enqueue("a", "b")
        report = self.failing_drain(self.backend(Slow))
        self.assertEqual((report.sent, report.requeued), (1, 1))
        self.assertEqual(self.left()[0]["attempts"], 1)

    @override_settings(MAIL_QUEUE_LEASE=0.6, MAIL_QUEUE_RATE=1.5)
    def test_waiting_for_a_turn_is_not_a_message_s_time(self) -> None:
        self.serve()
        self.enqueue("a", "b")
        self.assertEqual(self.drain().sent, 2)
        self.assertEqual(self.smtp.connections, 1)

    def test_out_of_step_when_time_is_over_is_not_tried_again(self) -> None:
        self.serve(always("RCPT", smtp.hang), extensions=["PIPELINING"])
        self.assertOver(self.backend(timeout=60))
        self.assertEqual(self.smtp.connections, 1)

    def test_expired_message_is_discarded_all_the_same(self) -> None:
        self.serve(always("MAIL", smtp.hang))
        self.enqueue("a", created=datetime(2020, 1, 1))
        with override_settings(MAIL_QUEUE_LEASE=0.4):
            self.assertEqual(self.failing_drain(self.backend(timeout=60)).discarded, 1)


class ConnectTests(SimpleTestCase):
    def connection(self, **kwargs: Any) -> DeliverySMTP:
        self.deadline = Deadline()
        connection = DeliverySMTP(deadline=self.deadline, **kwargs)
        self.addCleanup(connection.close)
        return connection

    def connected(self, connection: DeliverySMTP, port: int) -> socket.socket:
        """Connect, and return the socket."""
        connection.connect("127.0.0.1", port)
        assert connection.sock is not None
        return connection.sock

    def test_all_addresses_of_a_host_are_tried(self) -> None:
        with ScriptedServer() as smtp:
            with _resolving("127.0.0.1", 9, smtp.port):
                connected = self.connected(self.connection(timeout=5), smtp.port)
            self.assertEqual(connected.getpeername()[1], smtp.port)

    def test_last_failure_is_raised(self) -> None:
        with _resolving("127.0.0.1", 9), self.assertRaises(ConnectionRefusedError):
            self.connection(timeout=5).connect("nowhere", 25)

    def test_host_without_an_address(self) -> None:
        with _resolving("127.0.0.1"), self.assertRaisesMessage(OSError, "nowhere has no address"):
            self.connection(timeout=5).connect("nowhere", 25)

    def test_no_address_is_tried_when_time_is_over(self) -> None:
        connection = self.connection(timeout=5)
        self.deadline.start(0)
        self.deadline.fire_if_over(math.inf)
        with ScriptedServer() as smtp:
            self.assertRaises(TimeoutError, connection.connect, "127.0.0.1", smtp.port)
        self.assertEqual(smtp.connections, 0)

    def test_socket_that_gets_no_connection_is_closed(self) -> None:
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            with _resolving("127.0.0.1", 9, 9), self.assertRaises(ConnectionRefusedError):
                DeliverySMTP("nowhere", 25, deadline=Deadline())
            gc.collect()
        self.assertEqual([str(warning.message) for warning in warned], [])

    def test_source_address_and_default_time_out(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            source = listener.getsockname()
        with ScriptedServer() as smtp:
            connected = self.connected(self.connection(source_address=source), smtp.port)
            self.assertEqual((connected.getsockname(), connected.gettimeout()), (source, None))


def _resolving(address: str, *ports: int) -> Any:
    """Resolve each name to these ports of an address."""
    found = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, port)) for port in ports]
    return mock.patch.object(socket, "getaddrinfo", return_value=found)
