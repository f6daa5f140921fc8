"""The metadata in pyproject.toml; tests/process/packaged.py tests the distributions built from it."""

from __future__ import annotations

import re
import subprocess
import sys
from typing import Any
from unittest import skipIf

from django.test import SimpleTestCase

import mailqueue_backend
from tests import TOP

if sys.version_info >= (3, 11):
    import tomllib


def project() -> dict[str, Any]:
    found: dict[str, Any] = tomllib.loads((TOP / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return found


@skipIf(sys.version_info < (3, 11), "Python < 3.11 has no tomllib")
class ProjectTests(SimpleTestCase):
    def test_only_django_and_queue_front_are_hard_dependencies(self) -> None:
        self.assertEqual(project()["dependencies"], ["Django>=4.2", "queue-front>=0.7.2"])

    def test_every_extra_is_explained_in_the_readme(self) -> None:
        readme = (TOP / "README.md").read_text(encoding="utf-8")
        for extra in project()["optional-dependencies"].keys() - {"docs", "test"}:
            with self.subTest(extra):
                self.assertTrue(f'"django-mailqueue-backend[{extra}]"' in readme)


class VersionTests(SimpleTestCase):
    def test_is_written_in_one_place(self) -> None:
        version = re.escape(mailqueue_backend.__version__)
        holders = [
            path.relative_to(TOP).as_posix()
            for path in [*TOP.glob("*.toml"), *TOP.glob("*.py"), *TOP.glob("mailqueue_backend/**/*.py")]
            if re.search(rf"(?<![\w.]){version}(?![\w.])", path.read_text(encoding="utf-8"))
        ]
        self.assertEqual(holders, ["mailqueue_backend/__init__.py"])

    def test_setup_py_prints_it(self) -> None:
        for options in ([], ["-S"]):  # -S: no site-packages, hence no setuptools
            with self.subTest(options):
                result = subprocess.run(
                    [sys.executable, *options, "setup.py", "--version"],
                    cwd=TOP,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                self.assertEqual((result.stdout, result.stderr), (f"{mailqueue_backend.__version__}\n", ""))
