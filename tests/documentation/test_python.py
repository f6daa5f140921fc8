"""The Python code, the settings and the sessions of ``manage.py shell`` that the documentation shows."""

from __future__ import annotations

import doctest
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from io import StringIO
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import TextTestRunner, defaultTestLoader, mock

from django.core import mail
from django.core.mail.backends.base import BaseEmailBackend
from django.core.mail.backends.smtp import EmailBackend as SMTPBackend
from django.db import connections
from django.dispatch import Signal
from django.http import HttpRequest, HttpResponse
from django.test import SimpleTestCase, override_settings
from django.urls import path

from mailqueue_backend import checks, signals
from mailqueue_backend.history import receivers
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues.plain import PlainQueue
from tests.cases import QueueTestCase, drain, enqueue
from tests.smtp import ScriptedServer, always

from .pages import Fence, fences


def module(name: str, **names: Any) -> ModuleType:
    found = ModuleType(name)
    vars(found).update(names)
    return found


class Service(BaseEmailBackend):
    """Stands in for the backends of other packages; like Anymail's, it accepts an API key."""

    def __init__(self, api_key: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)


class SpoolQueue:
    """Stands in for the queue of a site's own module."""

    def __init__(self, name: str) -> None:
        self.name = name


#: The modules that the snippets import or name, and that are not installed with this package.
OTHERS = {
    "anymail": module("anymail"),
    "anymail.backends": module("anymail.backends"),
    "anymail.backends.mailgun": module("anymail.backends.mailgun", EmailBackend=Service),
    "celery": module("celery", shared_task=lambda **options: lambda function: function),
    "django_ses": module("django_ses", SESBackend=Service),
    "shop": module("shop"),
    "shop.logs": module("shop.logs"),
    "shop.models": module("shop.models", Customer=mock.Mock()),
    "shop.spool": module("shop.spool", Queue=SpoolQueue),
}


SIGNALS = [found for found in vars(signals).values() if isinstance(found, Signal)]


@contextmanager
def site() -> Iterator[None]:
    """Provide a site's directory, as the current one, and the modules of other packages; disconnect its receivers."""
    directory_before = os.getcwd()
    receivers_before = {signal: signal.receivers[:] for signal in SIGNALS}
    modules_before = {name: sys.modules[name] for name in OTHERS if name in sys.modules}
    with tempfile.TemporaryDirectory() as directory:
        os.chdir(directory)
        sys.modules.update(OTHERS)
        try:
            yield
        finally:
            os.chdir(directory_before)
            for signal, receivers in receivers_before.items():
                signal.receivers = receivers
                signal.sender_receivers_cache.clear()
            for name in OTHERS:
                del sys.modules[name]
            sys.modules.update(modules_before)


def execute(fence: Fence, **names: Any) -> dict[str, Any]:
    """Execute a fence, and return what it defines."""
    namespace = {"__name__": "shop", **names}
    exec(compile(fence.text, str(fence), "exec"), namespace)
    return namespace


def only(page: str) -> dict[str, Any]:
    """Execute the first fence of code on a page, in the current directory."""
    return execute(next(fence for fence in fences("python", page=page) if not fence.is_settings))


class SettingsTests(SimpleTestCase):
    #: What a project's settings already define.
    GIVEN = {"BASE_DIR": Path(), "INSTALLED_APPS": [], "DATABASES": {}, "LOGGING": {}}
    #: The apps that the README adds.
    APPS = ["mailqueue_backend", "mailqueue_backend.queues.database"]

    def test_all_pass_the_system_checks(self) -> None:
        self.addCleanup(receivers.disconnect)  # the history connects them when it is installed
        for fence in filter(lambda fence: fence.is_settings, fences("python")):
            with self.subTest(str(fence)), site():
                if "redis" in fence.text and find_spec("redis") is None:
                    self.skipTest("redis-py is not installed")
                names = execute(fence, **{name: type(value)(value) for name, value in self.GIVEN.items()})
                # The connections of a process cannot be changed, and its logging is the one of the tests.
                settings = {
                    name: value
                    for name, value in names.items()
                    if name.isupper() and value != self.GIVEN.get(name) and name not in ("DATABASES", "LOGGING")
                }
                self.assertTrue(settings or names["DATABASES"] or names["LOGGING"])
                if "INSTALLED_APPS" in settings:  # the page of an optional app adds only that one
                    settings["INSTALLED_APPS"] = [*dict.fromkeys([*self.APPS, *settings["INSTALLED_APPS"]])]
                with override_settings(**settings), mock.patch.dict(connections.settings, mail={}):
                    self.assertEqual(problems(), [])

    def test_they_are_found(self) -> None:
        self.assertGreater(sum(fence.is_settings for fence in fences("python")), 20)


def problems() -> list[str]:
    """Return what the system checks of this package report."""
    functions = (*checks.SETTINGS, *checks.QUEUES, *checks.MAILERS)
    return [str(problem) for function in functions for problem in function()]


class CodeTests(QueueTestCase):
    def test_all_runs(self) -> None:
        for fence in fences("python"):
            if not fence.is_settings:
                with self.subTest(str(fence)), site():
                    if "mailqueue_backend.tasks" in fence.text and find_spec("django.tasks") is None:
                        self.skipTest("django.tasks came with Django 6.0")
                    execute(fence)

    def test_a_module_of_the_site_s_own_is_a_queue(self) -> None:
        with site():
            queue = PlainQueue(only("docs/queues/queue-front.md")["Queue"]("MAIL_QUEUE"))
            queue.write_many(b"first", b"second")
            self.assertEqual(queue.counts().waiting, 2)
            self.assertEqual([queue.read(), queue.read(), queue.read()], [b"first", b"second", None])

    def test_three_tries_and_no_more(self) -> None:
        with ScriptedServer(always("DATA", "451 busy")) as server, self.assertLogs("mailqueue_backend"):
            backend = only("docs/hooks.md")["ThreeTriesBackend"]("127.0.0.1", server.port)
            enqueue("a")
            self.assertEqual([drain(backend).discarded for _ in range(3)], [0, 0, 1])
        self.assertIn("Given up after three tries: a, To:['to@example.com']", self.log_lines()[0])

    def test_refused_addresses_are_noted(self) -> None:
        with (
            site(),
            ScriptedServer(always("RCPT", "550 5.1.1 unknown")) as server,
            self.assertLogs("mailqueue_backend"),
        ):
            receiver = only("docs/signals.md")["note_refused_addresses"]
            enqueue("a")
            drain(QueuedEmailBackend("127.0.0.1", server.port), expire=0)
            customers = OTHERS["shop.models"].Customer.objects
        self.assertTrue(callable(receiver))  # a signal does not keep its receivers alive
        customers.filter.assert_called_once_with(email="to@example.com")
        customers.filter().update.assert_called_once_with(refused="550 5.1.1 unknown")

    def test_a_newsletter_has_its_own_server_and_queue(self) -> None:
        backend = only("docs/how-it-works.md")["NewsletterBackend"]()
        self.assertEqual((backend.host, backend.queue_name), ("bulk.example.org", "NEWSLETTER"))
        self.assertIsInstance(backend, SMTPBackend)


class TestOfASiteTests(SimpleTestCase):
    databases = {"default"}

    def test_passes(self) -> None:
        def order(request: HttpRequest) -> HttpResponse:
            mail.send_mail("Your order", request.POST["article"], "shop@example.org", ["reader@example.org"])
            return HttpResponse()

        suite = defaultTestLoader.loadTestsFromTestCase(only("docs/testing.md")["OrderTests"])
        with override_settings(ROOT_URLCONF=module("urls", urlpatterns=[path("order/", order)])):
            result = TextTestRunner(stream=StringIO()).run(suite)
        self.assertEqual((result.testsRun, result.failures + result.errors), (1, []))


class SessionTests(QueueTestCase):
    """The sessions of ``manage.py shell``, with twelve messages in the queue."""

    def run_session(self, fence: Fence) -> None:
        namespace: dict[str, Any] = {}
        for example in doctest.DocTestParser().get_examples(fence.text):
            if example.want:
                self.assertEqual(f"{eval(example.source, namespace)!r}\n", example.want)
            else:
                exec(example.source, namespace)

    def test_print_what_they_show(self) -> None:
        enqueue(*map(str, range(12)))
        for fence in fences("pycon"):
            with self.subTest(str(fence)):
                self.run_session(fence)
