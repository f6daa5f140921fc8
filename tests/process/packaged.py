"""The distributions that ``python -m build`` has put into TEST_DIST. Run by ``tox run -e package``; needs no Django."""

from __future__ import annotations

import os
import tarfile
import unittest
from email import message_from_bytes
from pathlib import Path
from zipfile import ZipFile

from tests import TOP

DIST = Path(os.environ["TEST_DIST"])


class WheelTests(unittest.TestCase):
    def setUp(self) -> None:
        self.wheel = ZipFile(next(DIST.glob("*.whl")))
        self.addCleanup(self.wheel.close)

    def test_contains_the_whole_package_and_nothing_else(self) -> None:
        source = {
            str(path.relative_to(TOP))
            for pattern in ("*.py", "*.lua", "*.html", "*.css", "*.js")
            for path in TOP.glob(f"mailqueue_backend/**/{pattern}")
        }
        packaged = {name for name in self.wheel.namelist() if ".dist-info/" not in name}

        self.assertEqual(packaged, source | {"mailqueue_backend/py.typed"})
        self.assertIn("mailqueue_backend/queues/database/migrations/0001_initial.py", packaged)
        self.assertIn("mailqueue_backend/queues/redis/script.lua", packaged)
        self.assertIn("mailqueue_backend/dashboard/templates/mailqueue_dashboard/messages.html", packaged)
        self.assertIn("mailqueue_backend/dashboard/static/mailqueue_dashboard/dashboard.css", packaged)

    def test_requires_only_django_and_queue_front(self) -> None:
        [name] = [name for name in self.wheel.namelist() if name.endswith(".dist-info/METADATA")]
        metadata = message_from_bytes(self.wheel.read(name))
        hard = [line for line in metadata.get_all("Requires-Dist", []) if "extra ==" not in line]

        self.assertEqual(sorted(hard), ["Django>=4.2", "queue-front>=0.7.2"])
        self.assertEqual(metadata["License-Expression"], "BSD-3-Clause")


class SourceTests(unittest.TestCase):
    def test_contains_tests_documentation_and_example(self) -> None:
        with tarfile.open(next(DIST.glob("*.tar.gz"))) as archive:
            names = {name.partition("/")[2] for name in archive.getnames()}
        for name in (
            "README.md",
            "CHANGELOG.md",
            "CONTRIBUTING.md",
            "docs/index.md",
            "LICENSE",
            "tox.ini",
            "tests/settings.py",
            "example/demo.py",
            "mailqueue_backend/queues/redis/script.lua",
            "example/postbox/logo.png",
            "example/postbox/templates/postbox.html",
        ):
            with self.subTest(name):
                self.assertIn(name, names)


if __name__ == "__main__":
    unittest.main()
