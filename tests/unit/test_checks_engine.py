"""The checks of QUEUE_BACKEND and of redisd's address."""

from __future__ import annotations

from importlib.util import find_spec
from unittest import mock, skipUnless

from django.core import mail
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.checks import check_dummy, check_queue, check_redis_address, check_redis_permissions


class EngineTests(SimpleTestCase):
    def test_the_default_is_right(self) -> None:
        self.assertEqual([*check_queue(), *check_dummy(), *check_redis_address(), *check_redis_permissions()], [])

    def test_engines_that_cannot_hold_mail_are_named(self) -> None:
        for backend in ("beanstalkd", "sqs", "memcached"):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend):
                self.assertEqual(check_queue()[0].id, "mailqueue_backend.W001")
                self.assertIn(backend, check_queue()[0].msg)

    @override_settings(QUEUE_BACKEND="tests.no_such_queue")
    def test_an_engine_that_cannot_be_imported_is_reported_with_the_cause(self) -> None:
        (problem,) = check_queue()
        self.assertEqual(problem.id, "mailqueue_backend.E002")
        self.assertIn("no_such_queue", problem.msg)

    @override_settings(INSTALLED_APPS=["mailqueue_backend"])
    def test_the_missing_app_of_the_database_queue_is_reported_with_the_line_to_add(self) -> None:
        (problem,) = check_queue()
        self.assertIn('add "mailqueue_backend.queues.database" to INSTALLED_APPS', problem.msg)

    @override_settings(QUEUE_BACKEND=3)
    def test_a_wrong_type_is_left_to_the_check_of_types(self) -> None:
        self.assertEqual([*check_queue(), *check_dummy(), *check_redis_address(), *check_redis_permissions()], [])


@override_settings(QUEUE_BACKEND="dummy")
class DummyTests(SimpleTestCase):
    def setUp(self) -> None:
        # As outside a test run.
        outbox = mail.__dict__.pop("outbox")
        self.addCleanup(setattr, mail, "outbox", outbox)

    def test_dummy_in_production_is_reported(self) -> None:
        (problem,) = check_dummy()
        self.assertEqual(problem.id, "mailqueue_backend.W003")
        self.assertIn('"dummy" keeps mail in the memory of one process', problem.msg)
        self.assertIn("database queue", problem.hint)

    @override_settings(DEBUG=True)
    def test_dummy_in_development_is_right(self) -> None:
        self.assertEqual(check_dummy(), [])

    def test_dummy_in_a_test_run_is_right(self) -> None:
        with mock.patch.object(mail, "outbox", [], create=True):
            self.assertEqual(check_dummy(), [])


@override_settings(QUEUE_BACKEND="redisd")
class RedisAddressTests(SimpleTestCase):
    def test_an_address_with_a_scheme_or_password_is_reported_and_not_shown(self) -> None:
        for address in ("redis://s3cret@host:6379", "redis://s3cret:6379/0", "s3cret@host:6379", "s3cret", "", None):
            with self.subTest(address), override_settings(QUEUE_REDIS_CONNECTION=address):
                (problem,) = check_redis_address()
                self.assertEqual(problem.id, "mailqueue_backend.E006")
                self.assertIn('like "localhost:6379", without a scheme', problem.msg)
                self.assertIn("MAIL_QUEUE_REDIS_URL", problem.hint)
                self.assertNotIn("s3cret", str(problem))

    def test_host_and_port_are_right(self) -> None:
        for address in ("localhost:6379", "10.0.0.1:6379", "[::1]:6379", ":6379"):
            with self.subTest(address), override_settings(QUEUE_REDIS_CONNECTION=address):
                self.assertEqual(check_redis_address(), [])

    @skipUnless(find_spec("redis"), "redis-py is not installed")
    @override_settings(QUEUE_REDIS_CONNECTION="redis://localhost:6379")
    def test_it_is_reported_once(self) -> None:
        self.assertEqual(check_queue(), [])

    @override_settings(QUEUE_BACKEND=None, QUEUE_REDIS_CONNECTION="redis://localhost:6379")
    def test_an_address_that_is_not_used_is_not_checked(self) -> None:
        self.assertEqual(check_redis_address(), [])
