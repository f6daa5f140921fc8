"""An exception at any line of a drain loses no message, duplicates none, and leaves nothing open."""

from __future__ import annotations

import json
import subprocess
from itertools import product
from typing import TYPE_CHECKING

from django.test import SimpleTestCase, TransactionTestCase, tag

from tests import services
from tests.kill.children import Site

if TYPE_CHECKING:
    from unittest import TestCase as Base
else:
    Base = object

INTERRUPTS = ("interrupt", "time limit")
SERVERS = ("none", "450", "down")
#: Files that read replies. Only an interrupt here may hide an acceptance, so that the message is sent again.
READS_REPLIES = ("/transport/connection.py", "/transport/replies.py")


class InterruptsMixin(Base):
    """Interrupt drains at many lines, one drain for each line."""

    engine: str

    def site(self) -> Site:
        """Return the site whose drains are interrupted."""
        return Site(self.engine)

    def check(self, interrupt: str, server: str, workers: int, stride: int) -> None:
        arguments = ("-m", "tests.kill.interrupts", interrupt, server, str(workers), str(stride))
        tried = self.site().spawn(*arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        output, errors = tried.communicate(timeout=600)
        self.assertEqual(tried.returncode, 0, errors)
        found = json.loads(output)
        self.assertEqual(found["faults"], [])
        self.assertGreater(found["lines"] * stride, 300)
        self.assertEqual([place for place in found["twice"] if not place.startswith(READS_REPLIES)], [])


class InterruptsContract(InterruptsMixin):
    """Combine each interrupt with each failure of the server, with one worker and with two."""

    def test_sample_of_lines(self) -> None:
        self.check("interrupt", "none", workers=1, stride=23)
        self.check("time limit", "none", workers=2, stride=23)

    @tag("slow")
    def test_every_line(self) -> None:
        self.check("interrupt", "none", workers=1, stride=1)

    @tag("slow")
    def test_every_third_line(self) -> None:
        for interrupt, workers in (("interrupt", 2), ("time limit", 1), ("time limit", 2)):
            with self.subTest(interrupt=interrupt, workers=workers):
                self.check(interrupt, "none", workers, stride=3)

    @tag("slow")
    def test_sample_of_lines_for_each_failure(self) -> None:
        for number, (interrupt, server, workers) in enumerate(product(INTERRUPTS, SERVERS, (1, 2))):
            with self.subTest(interrupt=interrupt, server=server, workers=workers):
                self.check(interrupt, server, workers, stride=(5, 7, 11)[number % 3])


class PlainInterruptsTests(InterruptsContract, SimpleTestCase):
    engine = "dummy"


class DatabaseInterruptsTests(InterruptsContract, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisInterruptsTests(InterruptsContract, SimpleTestCase):
    engine = "redis"
