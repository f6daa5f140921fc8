"""The client of the Redis queue: its settings, and servers that do not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import traceback
from unittest import mock

from django.conf import settings
from django.test import SimpleTestCase, override_settings, tag

from mailqueue_backend.errors import ConfigurationError, QueueUnavailable
from mailqueue_backend.queues.redis import Queue, RedisdQueue
from tests import services
from tests.engines.redis_cases import assert_in_time, needs_driver, queue_at
from tests.engines.redis_servers import free_port, listening


@needs_driver
class UnavailableTests(SimpleTestCase):
    """No server answers: send() must not hang, and the error must name the address."""

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
    def test_the_error_for_a_missing_url_shows_an_example(self) -> None:
        with self.assertRaisesRegex(ConfigurationError, 'MAIL_QUEUE_REDIS_URL.*"redis://localhost:6379/0"'):
            Queue("nowhere")

    def test_wrong_settings_of_redisd_are_refused(self) -> None:
        for wrong in (
            {"QUEUE_REDIS_CONNECTION": "localhost"},
            {"QUEUE_REDIS_CONNECTION": None},
            {"QUEUE_REDIS_CONNECTION": "localhost:none"},
            {"QUEUE_REDIS_CONNECTION": "redis://localhost:6379"},
            {"QUEUE_REDIS_CONNECTION": ":s3cret-w0rd@localhost:6379"},
            {"QUEUE_REDIS_DB": "first"},
            {"QUEUE_REDIS_TIMEOUT": "soon"},
        ):
            with (
                self.subTest(wrong),
                override_settings(**{"QUEUE_REDIS_CONNECTION": services.REDIS, **wrong}),
                self.assertRaisesRegex(ConfigurationError, "".join(wrong)) as caught,
            ):
                RedisdQueue("nowhere")
            self.assertNotIn("s3cret", str(caught.exception))

    def test_redisd_may_be_configured_by_the_environment(self) -> None:
        address = f"127.0.0.1:{free_port()}"
        environ = {"QUEUE_REDIS_CONNECTION": address, "QUEUE_REDIS_DB": "3"}
        with override_settings(), mock.patch.dict(os.environ, environ):
            del settings.QUEUE_REDIS_CONNECTION
            queue = RedisdQueue("nowhere")
        with self.assertRaisesRegex(QueueUnavailable, address):
            queue.write(b"one")

    def test_settings_of_redisd_are_used(self) -> None:
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
