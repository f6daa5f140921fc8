"""The layers of the package: imports point downwards, and importing a module has no side effects."""

from __future__ import annotations

import ast
import subprocess
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from django.test import SimpleTestCase

import mailqueue_backend

PACKAGE = Path(mailqueue_backend.__file__).parent

#: From the bottom to the top; a module imports only from its own layer and lower ones.
LAYERS = (
    ("errors", "logs"),
    ("settings", "signals"),
    ("envelope", "discards", "queues", "transport"),
    ("delivery",),
    ("mail",),
    ("inspection", "history"),
    ("management", "tasks", "test", "dashboard"),
    ("checks",),
    ("apps",),
)
#: These do not import each other: a queue stores bytes, and a connection is smtplib's.
APART = {"envelope", "discards", "queues", "transport"}


def _room(module: str) -> str:
    return module.removeprefix("mailqueue_backend.").partition(".")[0]


def _imports(path: Path) -> set[str]:
    """Return the names that a file imports from the package."""
    package = ["mailqueue_backend", *path.relative_to(PACKAGE).parts[:-1]]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level:
            base = ".".join([*package[: len(package) - node.level + 1], *filter(None, [node.module])])
            names.update(f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name for name in names if name.startswith("mailqueue_backend.")}


def _module(path: Path) -> str:
    return ".".join(["mailqueue_backend", *path.relative_to(PACKAGE).with_suffix("").parts]).removesuffix(".__init__")


class LayerTests(SimpleTestCase):
    def test_imports_point_downwards(self) -> None:
        height = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}
        for path in sorted(PACKAGE.rglob("*.py")):
            room = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
            if room == "__init__":
                continue
            with self.subTest(path=path.name):
                others = {_room(name) for name in _imports(path)} - {room}
                wrong = {name for name in others if height[name] > height[room]}
                self.assertEqual(wrong | (others & APART if room in APART else set()), set())

    def test_imports_have_no_cycle(self) -> None:
        files = {_module(path): path for path in PACKAGE.rglob("*.py")}
        graph = {
            module: {name if name in files else name.rpartition(".")[0] for name in _imports(path)} - {module}
            for module, path in files.items()
        }
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as error:
            self.fail(" -> ".join(error.args[1]))


#: Imports every module; exits with an error if one of them opens a socket, or a file for writing.
IMPORT_EVERYTHING = """
import importlib, os, pkgutil, sys
import django
from django.conf import settings
settings.configure(
    INSTALLED_APPS=[
        "django.contrib.admin", "django.contrib.auth", "django.contrib.contenttypes", "django.contrib.messages",
        "django.contrib.sessions", "mailqueue_backend", "mailqueue_backend.dashboard", "mailqueue_backend.history",
        "mailqueue_backend.queues.database",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "/nonexistent/db"}},
)
watched = False
def hook(event, args):
    if not watched:
        return
    if event.startswith(("socket.", "sqlite3.")):
        raise SystemExit(f"{event} {args}")
    if event == "open" and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and not str(args[0]).endswith(".pyc"):
        if "__pycache__" not in str(args[0]):
            raise SystemExit(f"{event} {args}")
sys.addaudithook(hook)
watched = True
django.setup()
import mailqueue_backend
for module in pkgutil.walk_packages(mailqueue_backend.__path__, "mailqueue_backend."):
    if module.name != "mailqueue_backend.tasks" or django.VERSION >= (6, 0):
        importlib.import_module(module.name)
print(len(sys.modules))
"""


class ImportTests(SimpleTestCase):
    def test_importing_every_module_opens_no_file_and_no_socket(self) -> None:
        result = subprocess.run(
            [sys.executable, "-B", "-c", IMPORT_EVERYTHING],
            capture_output=True,
            text=True,
            cwd=PACKAGE.parent,
            check=False,
        )
        self.assertEqual(result.returncode, 0, result.stderr)
