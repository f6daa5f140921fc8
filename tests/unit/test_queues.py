"""open_queue(): the queue that QUEUE_BACKEND names, and the errors when it cannot be used."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import ConfigurationError
from mailqueue_backend.queues import adapt, database, open_queue
from mailqueue_backend.queues.base import Consumer, Entry, MessageQueue
from mailqueue_backend.queues.plain import PlainQueue
from tests.engines.takers import WARNINGS


class Queue(MessageQueue):
    """A site's own queue, so that this module can serve as QUEUE_BACKEND."""


class OpenQueueTests(SimpleTestCase):
    def test_without_a_backend_it_is_the_database_queue(self) -> None:
        for backend in (None, ""):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend):
                self.assertIsInstance(open_queue("mail"), database.Queue)

    def test_without_a_backend_queue_front_is_not_imported(self) -> None:
        self.run_python(
            "import sys, django; django.setup()",
            "from mailqueue_backend.queues import open_queue; open_queue('mail')",
            "assert 'queue_front' not in sys.modules",
        )

    def test_the_backend_can_be_a_module_of_queue_front(self) -> None:
        with override_settings(QUEUE_BACKEND="dummy"):
            queue = open_queue("mail")
        self.assertIsInstance(queue, PlainQueue)
        self.assertEqual(repr(queue), "<mailqueue_backend.queues.plain.PlainQueue mail>")

    def test_the_backend_can_be_a_dotted_path(self) -> None:
        for backend, queue_class in ((__name__, Queue), ("mailqueue_backend.queues.database", database.Queue)):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend):
                queue = open_queue("mail")
                self.assertIs(type(queue), queue_class)
                self.assertEqual(queue.name, "mail")

    def test_the_error_for_a_backend_that_cannot_be_imported_names_the_cause(self) -> None:
        for backend, cause in {
            "nonsense": "No module named 'nonsense'",
            "tests.nonsense": "No module named 'tests.nonsense'",
            "beanstalkd": "No module named 'beanstalkc'",
            "memcached": "No module named",
            "tests.engines.takers": "the module has no class Queue",
        }.items():
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend):
                with self.assertRaises(ConfigurationError) as caught:
                    open_queue("mail")
                self.assertIn(f"QUEUE_BACKEND = '{backend}'", str(caught.exception))
                self.assertIn(cause, str(caught.exception))

    def test_backends_are_resolved_before_queue_front_is_imported(self) -> None:
        self.run_python(
            "import django; django.setup()",
            "from django.test import override_settings",
            "from tests.unit.test_queues import OpenQueueTests",
            "OpenQueueTests('test_the_backend_can_be_a_dotted_path').debug()",
        )
        self.run_python(
            "import django; django.setup()",
            "from tests.unit.test_queues import OpenQueueTests",
            "OpenQueueTests('test_the_error_for_a_backend_that_cannot_be_imported_names_the_cause').debug()",
        )

    def test_a_sites_module_may_import_queue_front(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            Path(directory, "site_queue.py").write_text(
                "from queue_front import QueueException\n"
                "from queue_front.backends.base import BaseQueue\n"
                "class Queue(BaseQueue):\n"
                "    def __init__(self, name): self.name = name\n"
            )
            self.run_python(
                f"import sys, django; django.setup(); sys.path.insert(0, {directory!r})",
                "from django.test import override_settings",
                "from mailqueue_backend.queues import open_queue",
                "with override_settings(QUEUE_BACKEND='site_queue'): assert open_queue('mail').name == 'mail'",
            )

    def run_python(self, *lines: str) -> None:
        command = [sys.executable, *WARNINGS, "-c", "\n".join(lines)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))


class MessageQueueTests(SimpleTestCase):
    def test_a_queue_that_lacks_a_method_names_it(self) -> None:
        queue = adapt(Queue("mail"))
        for name, arguments in {
            "write_many": (b"a",),
            "read": (),
            "counts": (),
            "consumer": (60,),
            "browse": ("due", 1),
        }.items():
            with self.subTest(name), self.assertRaisesMessage(NotImplementedError, f"Queue must define {name}()"):
                getattr(queue, name)(*arguments)

    def test_a_consumer_that_lacks_a_method_names_it(self) -> None:
        for name, call in {
            "_exchange()": lambda consumer: consumer.exchange(wanted=1),
            "take()": lambda consumer: consumer.take(Entry("key", b"a", "due", None, 0)),
        }.items():
            consumer = Consumer(Queue("mail"), 60)
            with self.subTest(name), self.assertRaisesMessage(NotImplementedError, f"Consumer must define {name}"):
                call(consumer)

    def test_repr_shows_module_class_and_name(self) -> None:
        self.assertEqual(repr(Queue("mail")), "<tests.unit.test_queues.Queue mail>")
        self.assertEqual(Queue().name, "default")
