"""The Redis queue when its server restarts, stops, is full, fails over or requires TLS."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
import traceback
from threading import Timer
from unittest import skipUnless

from django.test import SimpleTestCase, tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Exchange, Settlement
from tests import services
from tests.engines.redis_cases import TakingMixin, assert_in_time, queue_at
from tests.engines.redis_servers import INSTALLED, OwnRedis, Proxy, free_port

SELF_SIGNED = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
SELF_SIGNED += ["-addext", "subjectAltName=DNS:localhost"]


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class OwnServerTests(TakingMixin, SimpleTestCase):
    """Tests that stop or reconfigure their server, and so cannot use the shared one."""

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

    def test_a_flushed_script_is_loaded_again(self) -> None:
        self.queue.write_many(b"one", b"two")
        self.redis.script_flush()
        consumer = self.consumer()
        reservation = self.take(consumer=consumer)
        self.redis.script_flush()
        answer = consumer.exchange([Settlement(reservation, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_an_exchange_can_be_repeated_after_an_outage(self) -> None:
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

    def test_a_consumer_reconnects_when_the_server_closes_its_connection(self) -> None:
        self.queue.write_many(b"one", b"two")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        self.redis.client_kill_filter(_id=consumer._connection.execute("CLIENT", "ID"))
        answer = consumer.exchange([Settlement(first, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_a_consumer_takes_no_connection_from_the_pool(self) -> None:
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

    def fill_up(self) -> None:
        self.redis.config_set("maxmemory", 1)
        self.addCleanup(self.redis.config_set, "maxmemory", 0)

    def test_a_reservation_on_a_full_server_can_be_extended_and_put_back(self) -> None:
        self.queue.write_many(b"expired", b"fresh")
        self.take(0)
        for payload, deliveries in ((b"expired", 2), (b"fresh", 1)):
            self.fill_up()
            with self.queue.consumer(60) as consumer:
                reservation = self.take(consumer=consumer)
                consumer.extend([reservation])
            reservation = self.take(consumer=consumer)
            self.assertEqual(reservation[::2], (payload, deliveries))
            self.assertTrue(self.settle(reservation, "ack"))
            self.redis.config_set("maxmemory", 0)

    def test_a_full_server_refuses_a_write_and_can_be_drained(self) -> None:
        self.queue.write_many(b"sent", b"released", b"deferred", b"buried", b"taken")
        self.fill_up()
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
        consumer = queue.consumer(60)
        consumer.exchange()
        self.redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.addCleanup(self.redis.execute_command, "REPLICAOF", "NO", "ONE")
        proxy.target = f"127.0.0.1:{other.port}"
        with self.assertRaisesRegex(QueueUnavailable, "(?i)read.?only"):
            queue.write(b"two")
        with self.assertRaisesRegex(QueueUnavailable, "(?i)read.?only"):
            consumer.exchange(wanted=1)
        queue.write(b"two")
        consumer.exchange()
        self.assertEqual(self.take(consumer=consumer).payload, b"two")
        consumer.close()

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

    def test_a_wrong_password_is_reported_but_not_shown(self) -> None:
        queue = queue_at(f"redis://mailer:wr0ng-w0rd@127.0.0.1:{self.server.port}/0", "own")
        with self.assertRaisesRegex(QueueUnavailable, f"127.0.0.1:{self.server.port}.*WRONGPASS|password") as caught:
            queue.write(b"one")
        shown = "".join(traceback.format_exception(caught.exception)) + repr(queue) + repr(caught.exception)
        self.assertNotRegex(shown, "wr0ng|mailer:")

    @tag("slow")
    def test_a_write_to_a_stopped_server_fails_in_time(self) -> None:
        self.queue.write(b"one")
        for payload in (b"small", bytes(25_000_000)):
            with self.subTest(size=len(payload)), assert_in_time(self, f"127.0.0.1:{self.server.port}"):
                self.server.pause()
                self.addCleanup(self.server.pause, signal.SIGCONT)
                self.queue.write(payload)
        self.server.pause(signal.SIGCONT)

    @tag("slow")
    def test_an_exchange_survives_a_short_stop_of_the_server(self) -> None:
        self.queue.write(b"one")
        self.server.pause()
        waker = Timer(2, self.server.pause, [signal.SIGCONT])
        waker.start()
        self.addCleanup(waker.join)
        self.assertEqual(self.take().payload, b"one")
