"""How the Redis queue meets servers that restart, stop, fill up, move or are not there."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.resources import files
from importlib.util import find_spec
from threading import Timer
from typing import Any
from unittest import mock, skipUnless

from django.conf import settings
from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues.base import Consumer, Entry, Exchange, Settlement
from mailqueue_backend.queues.redis import Queue, RedisdQueue
from mailqueue_backend.queues.redis.script import FILES
from tests import services
from tests.engines.redis_servers import INSTALLED, OwnRedis, Proxy, free_port, listening
from tests.engines.test_queue_redis import TakingMixin, queue_at

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

    def restart(self) -> None:
        self.server.stop()
        self.server.start()

    def test_the_first_command_after_a_restart_does_not_fail(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        consumer = self.consumer()
        reservation = self.take(consumer=consumer)
        for first in (
            lambda: self.queue.write(b"four"),
            lambda: consumer.extend([reservation]) is None,
            lambda: consumer.exchange([Settlement(reservation, "ack")], 1).reservations,
            self.take,
        ):
            with self.subTest(first):
                self.restart()
                self.assertTrue(first())
        self.assertEqual(self.queue.read(), b"four")

    def test_a_batch_is_one_command(self) -> None:
        self.redis.config_resetstat()
        self.queue.write_many(*[b"payload"] * 1000)
        self.assertEqual(self.redis.info("commandstats")["cmdstat_rpush"]["calls"], 1)

    def test_the_script_may_be_flushed(self) -> None:
        self.queue.write_many(b"one", b"two")
        self.redis.script_flush()
        consumer = self.consumer()
        reservation = self.take(consumer=consumer)
        self.redis.script_flush()
        answer = consumer.exchange([Settlement(reservation, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_a_server_that_is_away_is_asked_again_when_it_is_back(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        self.server.stop()
        try:
            with self.assertRaises(QueueUnavailable):
                consumer.exchange([Settlement(first, "ack")], 1)
        finally:
            self.server.start()
        self.assertEqual(consumer.exchange([Settlement(first, "ack")], 1), Exchange([True], []))
        self.assertEqual(self.take(consumer=consumer).payload, b"two")
        consumer.close()
        self.assertEqual(self.queue.read_many(3), [b"two", b"three"])

    def test_a_consumer_whose_connection_is_closed_by_the_server_connects_anew(self) -> None:
        self.queue.write_many(b"one", b"two")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        self.redis.client_kill_filter(_id=consumer._connection.execute("CLIENT", "ID"))
        answer = consumer.exchange([Settlement(first, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_a_consumer_is_beside_the_pool_whose_size_is_limited(self) -> None:
        queue = queue_at(f"{self.server.url}?max_connections=1", "own")
        self.addCleanup(queue._server.hang_up)
        queue.write_many(b"one", b"two")
        with queue.consumer(60) as first, queue.consumer(60) as second:
            taken = [consumer.exchange(wanted=1).reservations[0].payload for consumer in (first, second)]
            self.assertEqual((taken, queue.counts().reserved), ([b"one", b"two"], 2))

    def test_a_closed_consumer_leaves_no_connection(self) -> None:
        before = self.redis.info("clients")["connected_clients"]
        with self.queue.consumer(60) as consumer:
            consumer.exchange(wanted=1)
            self.assertEqual(self.redis.info("clients")["connected_clients"], before + 1)
        deadline = time.monotonic() + 5
        while self.redis.info("clients")["connected_clients"] > before and time.monotonic() < deadline:
            time.sleep(0.01)
        self.assertEqual(self.redis.info("clients")["connected_clients"], before)

    def be_full(self) -> None:
        self.redis.config_set("maxmemory", 1)
        self.addCleanup(self.redis.config_set, "maxmemory", 0)

    def test_what_was_reserved_on_a_full_server_can_be_put_back_and_extended(self) -> None:
        self.queue.write_many(b"expired", b"fresh")
        self.take(0)
        for payload, deliveries in ((b"expired", 2), (b"fresh", 1)):
            self.be_full()
            with self.queue.consumer(60) as consumer:
                reservation = self.take(consumer=consumer)
                consumer.extend([reservation])
            reservation = self.take(consumer=consumer)
            self.assertEqual(reservation[::2], (payload, deliveries))
            self.assertTrue(self.settle(reservation, "ack"))
            self.redis.config_set("maxmemory", 0)

    def test_a_full_server_refuses_a_write_and_can_be_drained(self) -> None:
        self.queue.write_many(b"sent", b"released", b"deferred", b"buried", b"taken")
        self.be_full()
        with self.assertRaisesRegex(QueueUnavailable, "OOM|maxmemory"):
            self.queue.write(b"six")
        consumer = self.consumer()
        reservations = consumer.exchange(wanted=4).reservations
        ends = [("ack",), ("release", b"new bytes"), ("release", b"newer bytes", 60), ("bury",)]
        answer = consumer.exchange([Settlement(each, *end) for each, end in zip(reservations, ends, strict=True)])
        self.assertEqual(answer.settled, [True] * 4)
        taken = consumer.take(self.queue.browse("due", 1)[0])
        self.assertEqual(taken.payload, b"taken")
        self.assertTrue(self.settle(taken, "ack"))
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


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class FailingCommandTests(TakingMixin, SimpleTestCase):
    """Redis rolls nothing back: when a command of the script fails, whatever it has done before must be undone."""

    server: OwnRedis

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = OwnRedis()
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        super().setUp()
        self.admin = queue_at(self.server.url, "own")._server.client
        self.addCleanup(self.admin.flushall)
        self.allow()
        self.queue = queue_at(self.server.url.replace("//:", "//limited:"), "own")
        self.addCleanup(self.queue._server.hang_up)

    def allow(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", "limited", "on", f">{self.server.password}", "~*", "+@all", *rules)

    def operations(self) -> dict[str, Callable[[], object]]:
        """Fill the queue, and return what can be done with it; each has a consumer of its own."""
        self.admin.flushall()
        self.queue.write_many(*[b"%02d" % number for number in range(14)])
        dying, self.consumers = self.consumer(0.001), [self.consumer() for _ in range(3)]
        taking, busy, idle = self.consumers
        later, now, *self.held = busy.exchange(wanted=9).reservations
        busy.exchange([Settlement(later, "release", None, 60), Settlement(now, "release", None, 0.001)])
        dying.exchange(wanted=1)
        time.sleep(0.01)
        self.held.append(self.take(consumer=idle))
        self.held.append(busy.held.popitem()[1])
        dying.exchange(wanted=1)
        time.sleep(0.01)
        entries = [self.queue.browse(state, 9)[-1] for state in ("due", "deferred")]
        entries.append(self.queue.browse("due", 1)[0])
        ack, release, rewrite, defer, redefer, bury, back, suspect, _ = self.held

        def settle(consumer: Consumer, *settlement: Any) -> Callable[[], object]:
            return lambda: consumer.exchange([Settlement(*settlement)])

        def take(entry: Entry) -> Callable[[], object]:
            return lambda: taking.take(entry)

        return {
            "ack": settle(busy, ack, "ack"),
            "release": settle(busy, release, "release"),
            "rewrite": settle(busy, rewrite, "release", b"new"),
            "defer": settle(busy, defer, "release", None, 60),
            "rewrite and defer": settle(busy, redefer, "release", b"newer", 60),
            "bury": settle(busy, bury, "bury"),
            "put back": settle(busy, back, "put_back"),
            "put back a suspect": settle(idle, suspect, "put_back"),
            "extend": lambda: busy.extend(self.held),
            "reserve": lambda: busy.exchange(wanted=2),
            "reserve a suspect": lambda: taking.exchange(wanted=2),
            "take from the list": take(entries[0]),
            "take a deferred one": take(entries[1]),
            "take an ended lease": take(entries[2]),
            "close": lambda: busy.close(),
            "counts": self.queue.counts,
            "browse": lambda: self.queue.browse("due", 9, self.queue.browse("due", 1)[0]),
        }

    def contents(self) -> tuple[Counter[bytes], set[bytes]]:
        """Return all payloads, and the ids of what is reserved; check that nothing lies about."""
        waiting, payloads, leases, deliveries, deferred, dead = self.queue._keys
        bodies = self.admin.hgetall(payloads)
        reserved = set(self.admin.zrange(leases, 0, -1))
        self.assertEqual(set(bodies), reserved | set(self.admin.zrange(deferred, 0, -1)))
        self.assertEqual(set(self.admin.hkeys(deliveries)), reserved)
        listed = self.admin.lrange(waiting, 0, -1) + self.admin.lrange(dead, 0, -1)
        return Counter([*bodies.values(), *listed]), reserved

    def check(self, name: str, operation: Callable[[], object], restore: Callable[[], object]) -> bool:
        """Check that the operation has taken nothing if it fails, and that all can be put back then."""
        before, reserved = self.before
        old, new = self.changes.get(name, (b"", b""))
        done = before - Counter([old]) + Counter([new] if new else [])
        failed = False
        try:
            operation()
        except QueueUnavailable:
            failed = True
        restore()
        if failed:
            after, reserved_after = self.contents()
            # What was asked of the script has several steps: a settlement may be done though it found no suspect.
            self.assertIn(after, (before, done))
            self.assertEqual({id for id in reserved_after - reserved if not id.endswith(b"*")}, set())
            operation()
        for consumer in self.consumers:
            consumer.close()
        self.assertEqual(self.contents()[0], done)
        return failed

    #: What an operation makes of which payload.
    changes = {"ack": (b"02", b""), "rewrite": (b"04", b"new"), "rewrite and defer": (b"06", b"newer")}

    @tag("slow")
    def test_no_right_that_is_missing_loses_a_message(self) -> None:
        directory = files("mailqueue_backend.queues.redis")
        source = "".join(directory.joinpath(f"{name}.lua").read_text() for name in FILES)
        commands = sorted({*re.findall(r"'([A-Z]{3,})'", source)} - {"LIMIT", "WITHSCORES", "COUNT"})
        self.assertIn("HSET", commands)
        failures = set()
        for name in self.operations():
            for command in commands:
                with self.subTest(name, denied=command):
                    operation = self.operations()[name]
                    self.before = self.contents()
                    self.allow(f"-{command}")
                    if self.check(name, operation, self.allow):
                        failures.add(command)
        self.assertEqual(set(commands) - failures, {"LPOS"}, "denied, and nothing failed")

    @tag("slow")
    def test_no_key_of_another_type_loses_a_message(self) -> None:
        for name in self.operations():
            for key in self.queue._keys:
                with self.subTest(name, key=key):
                    operation = self.operations()[name]
                    self.before = self.contents()
                    there = self.admin.exists(key)
                    if there:
                        self.admin.rename(key, "aside")
                    self.admin.set(key, "a stranger's")

                    def restore(key: str = key, there: int = there) -> None:
                        self.assertEqual(self.admin.get(key), b"a stranger's")
                        self.admin.delete(key)
                        if there:
                            self.admin.rename("aside", key)

                    self.check(name, operation, restore)

    def test_one_settlement_that_fails_stops_no_other(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        consumer = self.consumer()
        one, two, three = consumer.exchange(wanted=3).reservations
        settlements = [Settlement(one, "bury"), Settlement(two, "ack"), Settlement(three, "release")]
        self.admin.set(self.queue.dead_name, "a stranger's")
        with self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
            consumer.exchange(settlements)
        self.admin.delete(self.queue.dead_name)
        self.assertEqual(self.queue.counts(), (1, 1, 0, 1, 0))
        self.assertEqual(consumer.exchange(settlements).settled, [True] * 3)
        self.assertEqual(self.queue.counts(), (1, 1, 0, 0, 1))


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
