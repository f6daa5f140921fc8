"""The metrics, as Prometheus' own parser reads them, and their file."""

from __future__ import annotations

import stat
import tempfile
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

from django.test import SimpleTestCase

from mailqueue_backend.inspection.figures import Figures
from mailqueue_backend.inspection.metrics import as_metrics, replace_file
from mailqueue_backend.queues.base import Counts
from tests import services


@services.needs("prometheus_client", find_spec("prometheus_client") is not None)
class MetricsTests(SimpleTestCase):
    def parse(self, *figures: Figures) -> dict[tuple[str, ...], float]:
        from prometheus_client.parser import text_string_to_metric_families

        families = list(text_string_to_metric_families(as_metrics(figures)))
        self.assertEqual([family.type for family in families], ["gauge", "gauge"])
        samples = [sample for family in families for sample in family.samples]
        self.assertEqual({sample.timestamp for sample in samples}, {None})
        return {(sample.name, *sample.labels.values()): sample.value for sample in samples}

    def test_each_state_of_each_queue_is_a_sample(self) -> None:
        samples = self.parse(Figures("A", Counts(3, 1, 2, 3, 4)), Figures("B", Counts(0, 0, 0, 0, 0)))
        self.assertEqual(len(samples), 8)
        for state, value in {"due": 1, "deferred": 2, "reserved": 3, "dead": 4}.items():
            self.assertEqual(samples["mailqueue_messages", "A", state], value)

    def test_the_oldest_message_is_a_time_and_absent_where_none_waits(self) -> None:
        created = 1796074917.333319
        samples = self.parse(Figures("A", Counts(1, 1, 0, 0, 0), created), Figures("B", Counts(0, 0, 0, 0, 0)))
        name = "mailqueue_oldest_created_timestamp_seconds"
        self.assertEqual({key: value for key, value in samples.items() if key[0] == name}, {(name, "A"): created})

    def test_labels_are_escaped(self) -> None:
        for name in ('a"b', "a\\b", "a\nb", "a\\nb", "Über}last{"):
            with self.subTest(name):
                self.assertIn(("mailqueue_messages", name, "due"), self.parse(Figures(name, Counts(0, 0, 0, 0, 0))))


class FileTests(SimpleTestCase):
    def setUp(self) -> None:
        directory = tempfile.TemporaryDirectory()
        self.addCleanup(directory.cleanup)
        self.path = Path(directory.name, "mailqueue.prom")

    def test_the_file_is_replaced_and_readable_by_all(self) -> None:
        self.path.write_text("old")
        inode = self.path.stat().st_ino
        replace_file(self.path, "new\n")
        self.assertEqual(self.path.read_text(), "new\n")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o644)
        self.assertNotEqual(self.path.stat().st_ino, inode)
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])

    def test_a_failure_leaves_the_old_file_alone(self) -> None:
        self.path.write_text("old")
        with mock.patch("os.replace", side_effect=OSError("full")), self.assertRaises(OSError):
            replace_file(self.path, "new")
        self.assertEqual(self.path.read_text(), "old")
        self.assertEqual(list(self.path.parent.iterdir()), [self.path])
