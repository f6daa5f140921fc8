"""The pages themselves: their links, their length, and the figures and defaults that they repeat."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from ast import literal_eval
from collections.abc import Iterator
from pathlib import Path

from django.test import SimpleTestCase

from mailqueue_backend.settings import Settings
from tests import TOP

from .pages import PAGES, without_fences

_HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
_LINK = re.compile(r"\[[^\]]+\]\((?!https?://)([^)#\s]*)(?:#([^)\s]+))?\)")


def anchors(path: Path) -> list[str]:
    """Return the anchors of the headings of a page, as GitHub and MyST form them."""
    headings = _HEADING.findall(without_fences(path))
    return [re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings]


class LinkTests(SimpleTestCase):
    def test_lead_to_a_page_and_a_heading(self) -> None:
        for page in PAGES:
            for target, anchor in _LINK.findall(without_fences(page)):
                with self.subTest(f"{page.name}: {target}#{anchor}"):
                    path = (page.parent / target).resolve() if target else page
                    self.assertTrue(path.exists())
                    self.assertIn(anchor, [*anchors(path), ""] if path.suffix == ".md" else [""])

    def test_every_page_is_in_the_readme(self) -> None:
        readme = (TOP / "README.md").read_text(encoding="utf-8")
        included = {"index.md", "contributing.md", "changelog.md"}
        for page in TOP.glob("docs/*.md"):
            if page.name not in included:
                with self.subTest(page.name):
                    self.assertIn(f"](docs/{page.name})", readme)


class ReadmeTests(SimpleTestCase):
    def test_is_one_page(self) -> None:
        self.assertLessEqual(len((TOP / "README.md").read_text(encoding="utf-8").splitlines()), 150)


class SettingsTests(SimpleTestCase):
    def sections(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the text of each section about a setting of this package."""
        text = without_fences(TOP / "docs" / "settings.md")
        yield from re.findall(r"^### `([A-Z_]+): .*?`\n(.*?)(?=^#|\Z)", text, re.MULTILINE | re.DOTALL)

    def test_each_has_a_section(self) -> None:
        ours = {name for name in vars(Settings) if name.startswith("MAIL_QUEUE_") or name == "QUEUE_BACKEND"}
        self.assertEqual({name for name, _ in self.sections()}, ours)

    def test_each_default_is_the_one_in_the_code(self) -> None:
        for name, text in self.sections():
            with self.subTest(name):
                found = re.search(r"Default:\s+`([^`]+)`", text)
                assert found is not None
                self.assertEqual(literal_eval(found[1]), vars(Settings)[name].default)


class ChecksTests(SimpleTestCase):
    def test_each_id_is_on_the_page(self) -> None:
        code = "".join(path.read_text(encoding="utf-8") for path in TOP.glob("mailqueue_backend/checks/*.py"))
        page = (TOP / "docs" / "checks.md").read_text(encoding="utf-8")
        pattern = r"mailqueue_backend\.[EW]\d{3}"
        self.assertEqual(set(re.findall(pattern, page)), set(re.findall(pattern, code)))


class SpeedTests(SimpleTestCase):
    def test_the_table_has_the_figures_of_the_results(self) -> None:
        results = json.loads((TOP / "benchmarks" / "results.json").read_text(encoding="utf-8"))
        page = (TOP / "docs" / "speed.md").read_text(encoding="utf-8")
        header, _, *rows = [[cell.strip() for cell in row.split("|")[1:-1]] for row in re.findall(r"^\|.+", page, re.M)]
        columns = [title.replace("`", "") for title in header[1:]]
        found = {
            title: {row[0]: int(row[number]) for row in rows if row[number]}
            for number, title in enumerate(columns, start=1)
        }
        self.assertEqual(found, results)

    def test_the_drawing_is_the_one_of_the_results(self) -> None:
        command = [sys.executable, "benchmarks/plot.py"]
        drawing = subprocess.run(command, cwd=TOP, capture_output=True, text=True, check=True).stdout
        self.assertEqual((TOP / "docs" / "speed.svg").read_text(encoding="utf-8"), drawing)
