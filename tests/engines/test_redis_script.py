"""The Lua script when one of its commands fails."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from django.test import SimpleTestCase, tag

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Consumer, Entry, Settlement
from mailqueue_backend.queues.redis.script import FILES
from tests import services
from tests.engines.redis_cases import TakingMixin, queue_at
from tests.engines.redis_servers import INSTALLED, OwnRedis


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class FailingCommandTests(TakingMixin, SimpleTestCase):
    """Redis rolls nothing back: when a command fails, the script must undo the commands before it."""

    server: OwnRedis

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = OwnRedis()
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        super().setUp()
        self.admin = queue_at(self.server.url, "own")._server.client
        self.addCleanup(self.admin.flushall)
        self.allow()
        self.queue = queue_at(self.server.url.replace("//:", "//limited:"), "own")
        self.addCleanup(self.queue._server.hang_up)

    def allow(self, *rules: str) -> None:
        self.admin.execute_command("ACL", "SETUSER", "limited", "on", f">{self.server.password}", "~*", "+@all", *rules)

    def operations(self) -> dict[str, Callable[[], object]]:
        """Fill the queue and return every operation on it by name."""
        self.admin.flushall()
        self.queue.write_many(*[b"%02d" % number for number in range(14)])
        dying, self.consumers = self.consumer(0.001), [self.consumer() for _ in range(3)]
        taking, busy, idle = self.consumers
        later, now, *self.held = busy.exchange(wanted=9).reservations
        busy.exchange([Settlement(later, "release", None, 60), Settlement(now, "release", None, 0.001)])
        dying.exchange(wanted=1)
        time.sleep(0.01)
        self.held.append(self.take(consumer=idle))
        self.held.append(busy.held.popitem()[1])
        dying.exchange(wanted=1)
        time.sleep(0.01)
        entries = [self.queue.browse(state, 9)[-1] for state in ("due", "deferred")]
        entries.append(self.queue.browse("due", 1)[0])
        ack, release, rewrite, defer, redefer, bury, back, suspect, _ = self.held

        def settle(consumer: Consumer, *settlement: Any) -> Callable[[], object]:
            return lambda: consumer.exchange([Settlement(*settlement)])

        def take(entry: Entry) -> Callable[[], object]:
            return lambda: taking.take(entry)

        return {
            "ack": settle(busy, ack, "ack"),
            "release": settle(busy, release, "release"),
            "rewrite": settle(busy, rewrite, "release", b"new"),
            "defer": settle(busy, defer, "release", None, 60),
            "rewrite and defer": settle(busy, redefer, "release", b"newer", 60),
            "bury": settle(busy, bury, "bury"),
            "put back": settle(busy, back, "put_back"),
            "put back a suspect": settle(idle, suspect, "put_back"),
            "extend": lambda: busy.extend(self.held),
            "reserve": lambda: busy.exchange(wanted=2),
            "reserve a suspect": lambda: taking.exchange(wanted=2),
            "take from the list": take(entries[0]),
            "take a deferred one": take(entries[1]),
            "take an ended lease": take(entries[2]),
            "close": lambda: busy.close(),
            "counts": self.queue.counts,
            "browse": lambda: self.queue.browse("due", 9, self.queue.browse("due", 1)[0]),
        }

    def contents(self) -> tuple[Counter[bytes], set[bytes]]:
        """Return all payloads and the ids of the reservations; check that no key holds an orphan."""
        waiting, payloads, leases, deliveries, deferred, dead = self.queue._keys
        bodies = self.admin.hgetall(payloads)
        reserved = set(self.admin.zrange(leases, 0, -1))
        self.assertEqual(set(bodies), reserved | set(self.admin.zrange(deferred, 0, -1)))
        self.assertEqual(set(self.admin.hkeys(deliveries)), reserved)
        listed = self.admin.lrange(waiting, 0, -1) + self.admin.lrange(dead, 0, -1)
        return Counter([*bodies.values(), *listed]), reserved

    def check(self, name: str, operation: Callable[[], object], restore: Callable[[], object]) -> bool:
        """Check that a failing operation loses nothing and works after restore(). Return whether it failed."""
        before, reserved = self.before
        old, new = self.changes.get(name, (b"", b""))
        done = before - Counter([old]) + Counter([new] if new else [])
        failed = False
        try:
            operation()
        except QueueUnavailable:
            failed = True
        restore()
        if failed:
            after, reserved_after = self.contents()
            # An exchange has several steps: the settlement may be done although a later step failed.
            self.assertIn(after, (before, done))
            self.assertEqual({id for id in reserved_after - reserved if not id.endswith(b"*")}, set())
            operation()
        for consumer in self.consumers:
            consumer.close()
        self.assertEqual(self.contents()[0], done)
        return failed

    #: Operation -> the payload that it replaces, and the new one; b"": it removes the payload.
    changes = {"ack": (b"02", b""), "rewrite": (b"04", b"new"), "rewrite and defer": (b"06", b"newer")}

    @tag("slow")
    def test_no_denied_command_loses_a_message(self) -> None:
        directory = files("mailqueue_backend.queues.redis")
        source = "".join(directory.joinpath(f"{name}.lua").read_text() for name in FILES)
        commands = sorted({*re.findall(r"'([A-Z]{3,})'", source)} - {"LIMIT", "WITHSCORES", "COUNT"})
        self.assertIn("HSET", commands)
        failures = set()
        for name in self.operations():
            for command in commands:
                with self.subTest(name, denied=command):
                    operation = self.operations()[name]
                    self.before = self.contents()
                    self.allow(f"-{command}")
                    if self.check(name, operation, self.allow):
                        failures.add(command)
        self.assertEqual(set(commands) - failures, {"LPOS"}, "denied, and nothing failed")

    @tag("slow")
    def test_no_key_of_another_type_loses_a_message(self) -> None:
        for name in self.operations():
            for key in self.queue._keys:
                with self.subTest(name, key=key):
                    operation = self.operations()[name]
                    self.before = self.contents()
                    there = self.admin.exists(key)
                    if there:
                        self.admin.rename(key, "aside")
                    self.admin.set(key, "a stranger's")

                    def restore(key: str = key, there: int = there) -> None:
                        self.assertEqual(self.admin.get(key), b"a stranger's")
                        self.admin.delete(key)
                        if there:
                            self.admin.rename("aside", key)

                    self.check(name, operation, restore)

    def test_a_failing_settlement_does_not_stop_the_others(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        consumer = self.consumer()
        one, two, three = consumer.exchange(wanted=3).reservations
        settlements = [Settlement(one, "bury"), Settlement(two, "ack"), Settlement(three, "release")]
        self.admin.set(self.queue.dead_name, "a stranger's")
        with self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
            consumer.exchange(settlements)
        self.admin.delete(self.queue.dead_name)
        self.assertEqual(self.queue.counts(), (1, 1, 0, 1, 0))
        self.assertEqual(consumer.exchange(settlements).settled, [True] * 3)
        self.assertEqual(self.queue.counts(), (1, 1, 0, 0, 1))
