"""The pages of the documentation, and their fences of code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

from tests import TOP

PAGES = [TOP / "README.md", TOP / "CONTRIBUTING.md", TOP / "CHANGELOG.md", *sorted(TOP.glob("docs/**/*.md"))]

_FENCE = re.compile(r"^( *)```([^\n`]*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)


class Fence(NamedTuple):
    """A fence of code; ``line`` is the number of its first line."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(TOP)}:{self.line}"

    @property
    def is_settings(self) -> bool:
        """Whether it only assigns to upper-case names."""
        return all(
            isinstance(node, (ast.Assign, ast.AugAssign)) and all(map(_is_setting, _targets(node)))
            for node in ast.parse(self.text).body
        )


def fences(*languages: str, page: str = "") -> Iterator[Fence]:
    """Yield the fences of these languages, on all pages or on the one with this name."""
    for path in [TOP / page] if page else PAGES:
        content = path.read_text(encoding="utf-8")
        for found in _FENCE.finditer(content):
            if found[2] in languages:
                yield Fence(path, content[: found.start()].count("\n") + 2, found[2], dedent(found[3]))


def without_fences(path: Path) -> str:
    """Return the text of a page without its fences."""
    return _FENCE.sub("", path.read_text(encoding="utf-8"))


def _targets(node: ast.Assign | ast.AugAssign) -> list[ast.expr]:
    return node.targets if isinstance(node, ast.Assign) else [node.target]


def _is_setting(target: ast.expr) -> bool:
    """Return whether a target is NAME, or NAME[...]."""
    name = target.value if isinstance(target, ast.Subscript) else target
    return isinstance(name, ast.Name) and name.id.isupper()
