"""How the Redis queue meets servers that restart, stop, fill up, move or are not there."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from threading import Timer
from unittest import mock, skipUnless

from django.conf import settings
from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues.redis import Queue, RedisdQueue

from . import services
from .redis_servers import INSTALLED, OwnRedis, Proxy, free_port, listening
from .test_queue_redis import TakingMixin, queue_at

needs_driver = services.needs("redis-py", find_spec("redis") is not None)

SELF_SIGNED = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
SELF_SIGNED += ["-addext", "subjectAltName=DNS:localhost"]


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class OwnServerTests(TakingMixin, SimpleTestCase):
    """What a server of one's own is needed for."""

    server: OwnRedis

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = OwnRedis("--unixsocket", "redis.sock")
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        super().setUp()
        self.queue = queue_at(self.server.url, "own")
        self.redis = self.queue._server.client
        self.addCleanup(self.redis.flushall)

    def test_the_first_command_after_a_restart_does_not_fail(self) -> None:
        self.queue.write_many(b"one", b"two")
        reservation = self.take()
        for first in (lambda: self.queue.write(b"three"), lambda: self.queue.ack(reservation), self.take):
            with self.subTest(first):
                self.server.stop()
                self.server.start()
                self.assertTrue(first())
        self.assertEqual(self.queue.read(), b"three")

    def test_a_batch_is_one_command(self) -> None:
        self.redis.config_resetstat()
        self.queue.write_many(*[b"payload"] * 1000)
        self.assertEqual(self.redis.info("commandstats")["cmdstat_rpush"]["calls"], 1)

    def test_the_script_may_be_flushed(self) -> None:
        self.queue.write(b"one")
        self.redis.script_flush()
        reservation = self.take()
        self.redis.script_flush()
        self.assertTrue(self.queue.ack(reservation))

    def test_the_script_may_be_flushed_while_the_next_message_is_fetched(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        self.redis.script_flush()
        self.assertEqual(self.drained_by_one(self.redis.script_flush), [b"one", b"two", b"three"])

    def test_a_restart_loses_nothing_while_the_next_message_is_fetched(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        self.assertEqual(self.drained_by_one(self.restart), [b"one", b"two", b"three"])

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def test_a_server_that_is_away_is_asked_again_when_it_is_back(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        queue = self.queue.prefetching()
        first = queue.reserve(60)
        self.server.stop()
        try:
            _, second = queue.ack_and_reserve(first, 60)
            with self.assertRaises(QueueUnavailable):
                queue.ack_and_reserve(second, 60)
        finally:
            self.server.start()
        acked, third = queue.ack_and_reserve(second, 60)
        self.assertEqual((acked, second.payload, third.payload), (True, b"two", b"three"))
        self.assertTrue(queue.ack(third))
        queue.stop_prefetching()
        self.assertEqual(self.queue.counts(), (0, 0, 0, 0, 0))

    def drained_by_one(self, between: Callable[[], object]) -> list[bytes]:
        """Drain as a worker who is alone, with something happening between its steps."""
        payloads, queue = [], self.queue.prefetching()
        reservation = queue.reserve(60)
        while reservation is not None:
            payloads.append(reservation.payload)
            between()
            acked, reservation = queue.ack_and_reserve(reservation, 60)
            self.assertTrue(acked)
        queue.stop_prefetching()
        self.assertEqual(self.queue.counts(), (0, 0, 0, 0, 0))
        return payloads

    def test_what_was_fetched_from_a_full_server_can_be_put_back(self) -> None:
        self.queue.write_many(b"expired", b"fresh")
        self.take(0)
        reservations = [self.take(), self.take()]
        self.redis.config_set("maxmemory", 1)
        self.addCleanup(self.redis.config_set, "maxmemory", 0)
        for reservation in reservations:
            self.assertTrue(self.queue.put_back(reservation))
            # Twice, as after a lost answer.
            self.queue.put_back(reservation)
        self.assertEqual([self.take()[::2] for _ in "ab"], [(b"expired", 2), (b"fresh", 1)])

    def test_a_full_server_refuses_a_write_and_can_be_drained(self) -> None:
        self.queue.write_many(b"sent", b"released", b"deferred", b"buried")
        self.redis.config_set("maxmemory", 1)
        self.addCleanup(self.redis.config_set, "maxmemory", 0)
        with self.assertRaisesRegex(QueueUnavailable, "OOM|maxmemory"):
            self.queue.write(b"five")
        _, released = self.queue.ack_and_reserve(self.take(), 60)
        assert released is not None
        self.assertTrue(self.queue.release(released, b"new bytes"))
        self.assertTrue(self.queue.release(self.take(), b"newer bytes", delay=60))
        self.assertTrue(self.queue.bury(self.take()))
        self.assertEqual(self.queue.read_many(9), [b"new bytes", b"newer bytes"])

    def test_after_a_failover_the_next_command_goes_to_the_new_server(self) -> None:
        other = OwnRedis()
        self.addCleanup(other.close)
        proxy = Proxy(f"127.0.0.1:{self.server.port}")
        self.addCleanup(proxy.close)
        queue = queue_at(f"redis://:{self.server.password}@{proxy.address}", "own")
        self.addCleanup(queue._server.hang_up)
        queue.write(b"one")
        self.redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.addCleanup(self.redis.execute_command, "REPLICAOF", "NO", "ONE")
        proxy.target = f"127.0.0.1:{other.port}"
        with self.assertRaisesRegex(QueueUnavailable, "(?i)read.?only"):
            queue.write(b"two")
        queue.write(b"two")
        self.assertEqual(queue.read(), b"two")

    def test_every_kind_of_url_finds_its_database(self) -> None:
        password, directory = self.server.password, self.server.directory
        urls = [
            f"redis://:{password}@127.0.0.1:{self.server.port}/3",
            f"unix://:{password}@{directory}/redis.sock?db=3",
        ]
        for url in urls:
            with self.subTest(url.partition(":")[0]):
                queue_at(url, "own").write(b"one")
        self.assertEqual(queue_at(urls[0], "own").counts().due, len(urls))
        self.assertEqual(len(self.queue), 0)

    @skipUnless(shutil.which("openssl"), "openssl is not installed")
    def test_tls_is_verified(self) -> None:
        certificate, key = self.server.directory / "certificate.pem", self.server.directory / "key.pem"
        subprocess.run(
            [*SELF_SIGNED, "-keyout", key, "-out", certificate],
            check=True,
            capture_output=True,
        )
        port = free_port()
        options = {"port": port, "cert-file": certificate, "key-file": key, "auth-clients": "no"}
        options["ca-cert-file"] = certificate
        server = OwnRedis(*(str(part) for name, value in options.items() for part in (f"--tls-{name}", value)))
        self.addCleanup(server.close)
        url = f"rediss://:{server.password}@localhost:{port}/0"
        queue_at(f"{url}?ssl_ca_certs={certificate}", "own").write(b"one")
        self.assertEqual(queue_at(server.url, "own").read(), b"one")
        with self.assertRaisesRegex(QueueUnavailable, "(?i)certificate"):
            queue_at(url, "own").write(b"one")

    def test_a_wrong_password_is_said_and_none_is_shown(self) -> None:
        queue = queue_at(f"redis://mailer:wr0ng-w0rd@127.0.0.1:{self.server.port}/0", "own")
        with self.assertRaisesRegex(QueueUnavailable, f"127.0.0.1:{self.server.port}.*WRONGPASS|password") as caught:
            queue.write(b"one")
        shown = "".join(traceback.format_exception(caught.exception)) + repr(queue) + repr(caught.exception)
        self.assertNotRegex(shown, "wr0ng|mailer:")

    @tag("slow")
    def test_a_stopped_server_fails_a_write_in_time(self) -> None:
        self.queue.write(b"one")
        for payload in (b"small", bytes(25_000_000)):
            with self.subTest(size=len(payload)), assert_in_time(self, f"127.0.0.1:{self.server.port}"):
                self.server.pause()
                self.addCleanup(self.server.pause, signal.SIGCONT)
                self.queue.write(payload)
        self.server.pause(signal.SIGCONT)

    @tag("slow")
    def test_a_drain_goes_on_when_the_server_stops_for_a_moment(self) -> None:
        self.queue.write(b"one")
        self.server.pause()
        waker = Timer(2, self.server.pause, [signal.SIGCONT])
        waker.start()
        self.addCleanup(waker.join)
        self.assertEqual(self.take().payload, b"one")


@needs_driver
class UnavailableTests(SimpleTestCase):
    """Nobody answers: send() must not hang, and say where it looked."""

    def test_no_server(self) -> None:
        address = f"localhost:{free_port()}"
        with assert_in_time(self, address, "MAIL_QUEUE_REDIS_URL"):
            queue_at(f"redis://user:s3cret-w0rd@{address}/0", "nowhere").write(b"one")

    def test_no_socket(self) -> None:
        with assert_in_time(self, "/nonexistent/redis.sock"):
            queue_at("unix://user:s3cret-w0rd@/nonexistent/redis.sock", "nowhere").write(b"one")

    def test_no_host(self) -> None:
        unknown = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        with assert_in_time(self, "redis.invalid:6379"), mock.patch("socket.getaddrinfo", side_effect=unknown):
            queue_at("redis://user:s3cret-w0rd@redis.invalid", "nowhere").write(b"one")

    @tag("slow")
    def test_a_server_that_never_answers(self) -> None:
        with listening(black_hole=False) as address, assert_in_time(self, address):
            queue_at(f"redis://user:s3cret-w0rd@{address}", "nowhere").write(b"one")

    @tag("slow")
    def test_a_black_hole_with_many_addresses(self) -> None:
        with listening(black_hole=True) as address, assert_in_time(self, address):
            host, port = address.split(":")
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
            with mock.patch("socket.getaddrinfo", return_value=found * 5):
                queue_at(f"redis://user:s3cret-w0rd@{address}", "nowhere").write(b"one")

    @tag("slow")
    def test_the_url_may_allow_more_time(self) -> None:
        with listening(black_hole=False) as address, self.assertRaises(QueueUnavailable):
            started = time.monotonic()
            try:
                queue_at(f"redis://{address}?socket_timeout=2.5", "nowhere").write(b"one")
            finally:
                self.assertGreater(time.monotonic() - started, 2.4)


@needs_driver
class ConfigurationTests(SimpleTestCase):
    def test_a_wrong_url_is_refused_at_once_and_not_shown(self) -> None:
        for url in (
            "http://:s3cret-w0rd@localhost",
            "redis://:s3cret/w0rd@localhost:6379",
            "redis://:s3cret-w0rd@localhost?socket_timeout=soon",
            "redis://:s3cret-w0rd@localhost?no_such_option=1",
            "rediss://:s3cret-w0rd@localhost?ssl_cert_reqs=sometimes",
        ):
            with self.subTest(url), self.assertRaisesRegex(ConfigurationError, "MAIL_QUEUE_REDIS_URL") as caught:
                queue_at(url, "nowhere")
            self.assertNotIn("s3cret", "".join(traceback.format_exception(caught.exception)))

    @override_settings(MAIL_QUEUE_REDIS_URL=None)
    def test_a_missing_url_is_asked_for(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, 'MAIL_QUEUE_REDIS_URL.*"redis://localhost:6379/0"'):
            Queue("nowhere")

    def test_wrong_settings_of_redisd_are_refused(self) -> None:
        for wrong in (
            {"QUEUE_REDIS_CONNECTION": "localhost"},
            {"QUEUE_REDIS_CONNECTION": None},
            {"QUEUE_REDIS_CONNECTION": "localhost:none"},
            {"QUEUE_REDIS_DB": "first"},
            {"QUEUE_REDIS_TIMEOUT": "soon"},
        ):
            with (
                self.subTest(wrong),
                override_settings(**{"QUEUE_REDIS_CONNECTION": services.REDIS, **wrong}),
                self.assertRaisesRegex(ConfigurationError, "QUEUE_REDIS_CONNECTION"),
            ):
                RedisdQueue("nowhere")

    def test_redisd_may_be_configured_by_the_environment(self) -> None:
        address = f"127.0.0.1:{free_port()}"
        environ = {"QUEUE_REDIS_CONNECTION": address, "QUEUE_REDIS_DB": "3"}
        with override_settings(), mock.patch.dict(os.environ, environ):
            del settings.QUEUE_REDIS_CONNECTION
            queue = RedisdQueue("nowhere")
        with self.assertRaisesRegex(QueueUnavailable, address):
            queue.write(b"one")

    def test_settings_of_redisd_are_followed(self) -> None:
        with override_settings(QUEUE_REDIS_CONNECTION="localhost:6379", QUEUE_REDIS_DB=3, QUEUE_REDIS_TIMEOUT=9):
            options = RedisdQueue("nowhere")._server.client.connection_pool.connection_kwargs
        self.assertEqual((options["db"], options["socket_timeout"]), (3, 9))

    def test_a_missing_driver_is_explained(self) -> None:
        with (
            mock.patch.dict(sys.modules, {"redis": None}),
            self.assertRaisesRegex(ConfigurationError, r'pip install "django-mailqueue-backend\[redis\]"'),
        ):
            queue_at("redis://localhost", "nowhere")

    def test_queues_of_one_address_share_their_connections(self) -> None:
        first, second = queue_at("redis://localhost", "one"), queue_at("redis://localhost", "two")
        self.assertIs(first._server, second._server)
        self.assertIsNot(first._server, queue_at("redis://localhost/1", "one")._server)

    def test_importing_loads_neither_driver_nor_queue_front(self) -> None:
        code = "import sys, mailqueue_backend.queues.redis; sys.exit(bool({'redis', 'queue_front'} & {*sys.modules}))"
        self.assertEqual(subprocess.run([sys.executable, "-c", code], check=False).returncode, 0)


@contextmanager
def assert_in_time(case: SimpleTestCase, *texts: str) -> Iterator[None]:
    """Expect QueueUnavailable with these texts within 5 seconds, and without what stands before the @."""
    started = time.monotonic()
    with case.assertRaises(QueueUnavailable) as caught:
        yield
    case.assertLess(time.monotonic() - started, 5)
    for text in texts:
        case.assertIn(text, str(caught.exception))
    case.assertNotIn("s3cret", "".join(traceback.format_exception(caught.exception)))
