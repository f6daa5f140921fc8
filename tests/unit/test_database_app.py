"""The app of the database queue: its requirements, and the errors when they are missing."""

from __future__ import annotations

import os
import subprocess
import sys

from django.test import SimpleTestCase, modify_settings, override_settings

from mailqueue_backend.errors import ConfigurationError
from mailqueue_backend.queues import database, open_queue
from mailqueue_backend.queues.database import queue as module
from tests.engines.contract.base import LONG


class AppTests(SimpleTestCase):
    def test_without_the_app_the_error_says_what_to_add(self) -> None:
        with (
            modify_settings(INSTALLED_APPS={"remove": "mailqueue_backend.queues.database"}),
            self.assertRaises(ConfigurationError) as caught,
        ):
            open_queue("mail")
        self.assertIn('add "mailqueue_backend.queues.database" to INSTALLED_APPS', str(caught.exception))
        self.assertIn("manage.py migrate", str(caught.exception))

    def test_the_module_provides_queue_and_no_unknown_name(self) -> None:
        self.assertIs(database.Queue, module.Queue)
        self.assertFalse(hasattr(database, "Pueue"))

    @override_settings(MAIL_QUEUE_DATABASE="nowhere")
    def test_an_unknown_alias_is_a_configuration_error(self) -> None:
        queue = database.Queue("mail")
        exchange = queue.consumer(LONG).exchange
        for call in (queue.read, queue.counts, lambda: queue.write(b"a"), lambda: exchange(wanted=1)):
            with self.assertRaisesMessage(ConfigurationError, "MAIL_QUEUE_DATABASE = 'nowhere'"):
                call()

    def test_the_app_can_be_imported_without_models_or_settings(self) -> None:
        environment = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
        command = [sys.executable, "-W", "error", "-c", "import mailqueue_backend.queues.database.apps"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        self.assertEqual((run.returncode, run.stderr), (0, ""))
