"""The LOGGING that writes the delivery log, in the settings of a site."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from django.test import TransactionTestCase, override_settings

from tests import TOP
from tests.cases import BACKEND, enqueue
from tests.smtp import ScriptedServer, in_turn

from .pages import fences

SETTINGS = """
from pathlib import Path
from tests.settings import *
BASE_DIR = Path(__file__).parent
"""


@override_settings(EMAIL_BACKEND=BACKEND)
class DeliveryLogTests(TransactionTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.site = Path(directory.name)
        on_page = list(fences("python", page="docs/logs.md"))
        self.plain, self.as_json = (fence for fence in on_page if fence.is_settings and "formatter" in fence.text)
        (self.formatter,) = (fence for fence in on_page if not fence.is_settings)

    def lines(self, settings: str) -> list[str]:
        """Fail to deliver a message, deliver it with another run, and return the lines of the file."""
        (self.site / "settings.py").write_text(SETTINGS + settings, encoding="utf-8")
        (self.site / "shop").mkdir()
        (self.site / "shop" / "logs.py").write_text(self.formatter.text, encoding="utf-8")
        enqueue("a")
        command = [sys.executable, "-m", "django", "process_mail_queue"]
        with ScriptedServer(in_turn(dot=["451 4.3.0 later", "250 2.0.0 Ok"])) as server:
            environ = {
                **os.environ,
                "DJANGO_SETTINGS_MODULE": "settings",
                "PYTHONPATH": os.pathsep.join([str(self.site), str(TOP)]),
                "TEST_EMAIL_PORT": str(server.port),
            }
            for _ in range(2):
                result = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
                self.assertEqual(result.returncode, 0, result.stderr)
        return (self.site / "deliveries.log").read_text(encoding="utf-8").splitlines()

    def test_file_has_a_line_for_each_attempt_and_no_warnings(self) -> None:
        requeued, sent = self.lines(self.plain.text)
        self.assertIn(" status=requeued queue=MAIL_QUEUE ", requeued)
        self.assertIn(' reply="250 2.0.0 Ok"', sent)

    def test_json_has_every_field(self) -> None:
        requeued, sent = map(json.loads, self.lines(self.plain.text + self.as_json.text))
        self.assertEqual((requeued["status"], requeued["error"]), ("requeued", "451 4.3.0 later"))
        self.assertEqual((sent["status"], sent["to"], sent["attempts"]), ("sent", "to@example.com", 2))
