"""The line of ``mail_queue check``, and its exit status."""

from __future__ import annotations

import re
import time

from django.test import SimpleTestCase

from mailqueue_backend.inspection.alarm import CRITICAL, OK, UNKNOWN, WARNING, Limits, alarm, unknown
from mailqueue_backend.inspection.figures import Figures
from mailqueue_backend.queues.base import Counts

#: 'label'=value[unit];[warn];[crit];[min]
PERFDATA = re.compile(r"(?P<label>'(?:[^'=]|'')+'|[^\s'=]+)=(?P<value>U|[\d.]+)s?;(?P<warn>[\d.]*);(?P<crit>[\d.]*);0")


def figures(name: str = "MAIL_QUEUE", age: float | None = None, **states: int) -> Figures:
    counts = {"due": 0, "deferred": 0, "reserved": 0, "dead": 0, **states}
    oldest = None if age is None else time.time() - age
    return Figures(name, Counts(counts["due"] + counts["deferred"], **counts), oldest)


def perfdata(line: str) -> list[str]:
    """Return the labels; fail unless all that follows the bar is perfdata."""
    _, _, data = line.partition(" | ")
    found = [match["label"] for match in PERFDATA.finditer(data)]
    if PERFDATA.sub("", data).strip():
        raise AssertionError(f"no perfdata: {data}")
    return found


class AlarmTests(SimpleTestCase):
    def test_the_line_names_the_oldest_and_the_sums(self) -> None:
        status, line = alarm([figures(age=4012, due=12, deferred=3, dead=1)], Limits())
        self.assertEqual(status, CRITICAL)
        self.assertEqual(
            line,
            "MAIL CRITICAL - oldest in MAIL_QUEUE waits 4012 s; 12 due, 1 dead | "
            "MAIL_QUEUE_age=4012s;600;3600;0 MAIL_QUEUE_waiting=15;;;0",
        )

    def test_the_worst_value_decides(self) -> None:
        for each, limits, expected in (
            (figures(), Limits(), OK),
            (figures(age=599, due=1), Limits(), OK),
            (figures(age=601, due=1), Limits(), WARNING),
            (figures(age=3601, due=1), Limits(), CRITICAL),
            (figures(dead=1), Limits(), WARNING),
            (figures(dead=1), Limits(warn_dead=2), OK),
            (figures(dead=9), Limits(crit_dead=9), CRITICAL),
            (figures(age=601, due=1, dead=9), Limits(crit_dead=9), CRITICAL),
            (figures(age=70, due=1), Limits(crit_age=60), CRITICAL),
        ):
            with self.subTest(each, limits=limits):
                status, line = alarm([each], limits)
                self.assertEqual(status, expected)
                self.assertEqual(perfdata(line), ["MAIL_QUEUE_age", "MAIL_QUEUE_waiting"])

    def test_the_oldest_of_all_queues_is_named(self) -> None:
        status, line = alarm([figures("A", 9, due=1), figures("B", 700, due=2), figures("C")], Limits())
        self.assertEqual(status, WARNING)
        self.assertIn("oldest in B waits 700 s; 3 due, 0 dead |", line)
        self.assertEqual(len(perfdata(line)), 6)

    def test_an_unknown_age_is_u(self) -> None:
        status, line = alarm([figures(due=3)], Limits())
        self.assertEqual(status, OK)
        self.assertIn("how long they wait is not known; 3 due, 0 dead | MAIL_QUEUE_age=U;600;3600;0", line)
        perfdata(line)

    def test_an_empty_queue_has_no_oldest_message(self) -> None:
        self.assertIn("MAIL OK - no message waits; 0 due, 0 dead | MAIL_QUEUE_age=0s;", alarm([figures()], Limits())[1])

    def test_any_name_of_a_queue_makes_one_line_of_perfdata(self) -> None:
        for name in ("my queue", "it's", "a=b", "a|b", "a\nb", "Überlast"):
            with self.subTest(name):
                _, line = alarm([figures(name, 9, due=1)], Limits())
                self.assertEqual((line.count("|"), line.count("\n"), len(perfdata(line))), (1, 0, 2))

    def test_a_pause_is_said(self) -> None:
        self.assertIn("; MAIL_QUEUE is paused |", alarm([figures()._replace(paused="")], Limits())[1])

    def test_a_queue_that_cannot_be_asked_is_unknown(self) -> None:
        self.assertEqual(unknown("no | route\nto host"), (UNKNOWN, r"MAIL UNKNOWN - no / route\nto host"))
