"""The commands, systemd units, Kubernetes objects and Procfiles that the documentation shows."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import mock, skipUnless

from django.core.management import get_commands, load_command_class
from django.db import connections
from django.test import SimpleTestCase

from mailqueue_backend.settings import Settings

from .pages import PAGES, fences, without_fences

#: Ends a command in a shell.
_END = re.compile(r"[;&|<>]+|")
_INLINE = re.compile(r"`(?:python )?(manage\.py [^`…]+)`")


def shown() -> Iterator[tuple[str, str]]:
    """Yield each line with a ``manage.py`` command, and where it is."""
    for fence in fences("console", "ini", "procfile", "pycon", "sh"):
        yield from ((str(fence), line) for line in fence.text.splitlines() if "manage.py" in line)
    for page in PAGES:
        yield from ((page.name, " ".join(code.split())) for code in _INLINE.findall(without_fences(page)))


def arguments(line: str) -> list[str]:
    """Return the arguments of ``manage.py`` in a line of shell."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split, lexer.commenters = True, "#"
    words = list(lexer)
    start = next(number for number, word in enumerate(words, start=1) if word.endswith("manage.py"))
    end = next((number for number, word in enumerate(words) if number >= start and _END.fullmatch(word)), len(words))
    return words[start:end]


class ManageTests(SimpleTestCase):
    def test_every_line_suits_the_command_s_parser(self) -> None:
        commands = get_commands()
        # Commands accept only databases that exist.
        databases = mock.patch.dict(connections.settings, mail=connections.settings["default"])
        for place, line in shown():
            with self.subTest(place, line=line), databases:
                name, *rest = arguments(line)
                command = load_command_class(commands[name], name)
                command.create_parser("manage.py", name).parse_args(rest)

    def test_the_lines_are_found(self) -> None:
        lines = [line for _, line in shown()]
        self.assertGreater(len(lines), 20)
        self.assertIn(
            ["process_mail_queue", "--loop", "--interval", "2"], [arguments(line) for line in lines if "--loop" in line]
        )
        self.assertEqual(
            arguments("cd /srv && .venv/bin/python manage.py check --tag x > /dev/null"), ["check", "--tag", "x"]
        )


@skipUnless(shutil.which("systemd-analyze"), "systemd-analyze is not installed")
class UnitTests(SimpleTestCase):
    def test_systemd_understands_every_unit(self) -> None:
        with tempfile.TemporaryDirectory() as directory:
            for fence in fences("ini"):
                with self.subTest(str(fence)):
                    kind = "timer" if "[Timer]" in fence.text else "service"
                    unit = Path(directory, f"mail-queue.{kind}")
                    # systemd looks for the program; everything else is as shown.
                    unit.write_text(fence.text.replace("/srv/site/.venv/bin/python", sys.executable), encoding="utf-8")
                    self.assertEqual(complaints(unit), "")


class ProcfileTests(SimpleTestCase):
    def test_every_line_is_a_process(self) -> None:
        (fence,) = fences("procfile")
        for line in fence.text.splitlines():
            self.assertRegex(line, r"^[A-Za-z0-9_-]+: \S.*$")


@skipUnless(find_spec("yaml"), "PyYAML is not installed")
class YAMLTests(SimpleTestCase):
    def test_every_fence_can_be_loaded(self) -> None:
        import yaml

        for fence in fences("yaml"):
            with self.subTest(str(fence)):
                self.assertTrue(all(yaml.safe_load_all(fence.text)))


@skipUnless(find_spec("yaml"), "PyYAML is not installed")
class KubernetesTests(SimpleTestCase):
    def pods(self) -> Iterator[dict[str, Any]]:
        """Yield the specification of the pods of each object."""
        import yaml

        for fence in fences("yaml", page="docs/running.md"):
            for found in yaml.safe_load_all(fence.text):
                if isinstance(found, list):  # rules of Prometheus
                    continue
                spec = found["spec"]["jobTemplate"]["spec"] if found["kind"] == "CronJob" else found["spec"]
                yield spec["template"]["spec"]

    def test_every_container_runs_a_command_that_the_parser_accepts(self) -> None:
        pods = list(self.pods())
        self.assertEqual(len(pods), 2)
        for pod in pods:
            for container in pod["containers"]:
                python, manage, name, *rest = container["command"]
                self.assertEqual((python, manage), ("python", "manage.py"))
                load_command_class(get_commands()[name], name).create_parser("manage.py", name).parse_args(rest)

    def test_every_pod_may_finish_its_deliveries(self) -> None:
        lease: Any = Settings.MAIL_QUEUE_LEASE
        for pod in self.pods():
            self.assertEqual(pod["terminationGracePeriodSeconds"], lease.default / 2)


def complaints(unit: Path) -> str:
    """Return what systemd says about a unit; "" if it is right."""
    command = ["systemd-analyze", "verify", "--man=no", str(unit)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout + result.stderr
