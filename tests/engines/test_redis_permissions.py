"""The permissions that the documentation lists for a Redis user, and the check that tries them."""

from __future__ import annotations

import re
import time
from importlib.resources import files
from unittest import skipUnless

from django.core import mail
from django.test import SimpleTestCase, override_settings

from mailqueue_backend.checks import check_redis_permissions
from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues.base import Settlement
from mailqueue_backend.queues.paused import pause, paused_reason, resume
from mailqueue_backend.queues.redis.permissions import COMMANDS
from mailqueue_backend.queues.redis.script import FILES
from tests import TOP, services
from tests.cases import BACKEND
from tests.engines.redis_cases import TakingMixin, queue_at
from tests.engines.redis_servers import INSTALLED, OwnRedis, free_port

ENGINE = "mailqueue_backend.queues.redis"
LINE = re.compile(r"^ACL SETUSER (\w+) .*$", re.M)


def documented_lines() -> dict[str, str]:
    """Return the ACL lines of the documentation by user."""
    text = (TOP / "docs" / "queues" / "redis.md").read_text(encoding="utf-8")
    return {found[1]: found[0] for found in LINE.finditer(text)}


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class PermissionTests(TakingMixin, SimpleTestCase):
    server: OwnRedis

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = OwnRedis()
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        super().setUp()
        self.admin = queue_at(self.server.url, "MAIL_QUEUE")
        self.redis = self.admin._server.client
        self.addCleanup(self.redis.flushall)
        for user, line in documented_lines().items():
            self.redis.execute_command(*line.replace("PASSWORD", self.server.password).split())
            self.addCleanup(self.redis.acl_deluser, user)
        self.queue = queue_at(self.url("drain"), "MAIL_QUEUE")
        self.addCleanup(self.queue._server.hang_up)

    def url(self, user: str) -> str:
        return self.server.url.replace("//:", f"//{user}:")

    def check(self, user: str = "drain") -> list[str]:
        with override_settings(QUEUE_BACKEND=ENGINE, MAIL_QUEUE_REDIS_URL=self.url(user)):
            return [problem.msg for problem in check_redis_permissions()]

    def test_the_line_of_a_sender_is_enough_to_queue_and_for_nothing_else(self) -> None:
        queue = queue_at(self.url("web"), "MAIL_QUEUE")
        self.addCleanup(queue._server.hang_up)
        queue.write_many(b"one", b"two")
        with self.assertRaisesRegex(QueueUnavailable, "(?i)permission"):
            queue.read()
        self.assertEqual(self.queue.read_many(2), [b"one", b"two"])

    def test_the_line_of_a_drain_is_enough_for_every_settlement(self) -> None:
        self.queue.write_many(b"sent", b"released", b"rewritten", b"deferred", b"buried", b"back", b"left")
        consumer = self.consumer()
        held = consumer.exchange(wanted=7).reservations
        consumer.extend(held)
        ends = [
            ("ack",),
            ("release",),
            ("release", b"new"),
            ("release", None, 60),
            ("bury",),
            ("put_back",),
            ("leave",),
        ]
        settled = consumer.exchange([Settlement(each, *end) for each, end in zip(held, ends, strict=True)]).settled
        self.assertEqual((settled, self.queue.counts()), ([True] * 7, (4, 3, 1, 1, 1)))

    def test_the_line_of_a_drain_is_enough_to_browse_and_to_take(self) -> None:
        self.queue.write_many(b"deferred", b"reserved", b"dead")
        consumer = self.consumer()
        deferred, _, dead = consumer.exchange(wanted=3).reservations
        consumer.exchange([Settlement(deferred, "release", None, 60), Settlement(dead, "bury")])
        self.queue.write_many(b"suspect", b"due")
        self.take(0.001)
        time.sleep(0.01)
        pages = {state: self.queue.browse(state, 9) for state in ("due", "deferred", "reserved", "dead")}
        listed = {state: [entry.payload for entry in page] for state, page in pages.items()}
        expected = {"deferred": [b"deferred"], "reserved": [b"reserved"], "dead": [b"dead"]}
        self.assertEqual(listed, {"due": [b"suspect", b"due"], **expected})
        for entry in (*pages["due"], *pages["deferred"]):
            following = pages["due"][1:] if entry.payload == b"suspect" else []
            self.assertEqual(self.queue.browse(entry.state, 9, entry), following)
            self.assertTrue(self.settle(consumer.take(entry), "put_back"))

    def test_the_line_of_a_drain_is_enough_for_the_dead_queue(self) -> None:
        self.queue.write(b"one")
        self.settle(self.take(), "bury")
        self.queue = queue_at(self.url("drain"), "MAIL_QUEUE_DEAD")
        self.settle(self.take(), "bury")
        self.assertEqual(self.queue.counts(), (0, 0, 0, 0, 1))

    def test_the_line_of_a_drain_is_enough_to_pause(self) -> None:
        self.assertIsNone(paused_reason(self.queue))
        pause(self.queue, "first")
        pause(self.queue, "second")
        self.assertEqual(paused_reason(self.queue), "second")
        self.assertTrue(resume(self.queue))

    def test_the_check_accepts_the_line_and_changes_nothing(self) -> None:
        self.queue.write(b"one")
        self.assertEqual(self.check(), [])
        self.assertEqual((self.redis.keys(), self.queue.read_many(9)), ([b"MAIL_QUEUE"], [b"one"]))

    def test_the_check_names_each_denied_command(self) -> None:
        directory = files("mailqueue_backend.queues.redis")
        source = "".join(directory.joinpath(f"{name}.lua").read_text() for name in FILES)
        used = {*re.findall(r"'([A-Z]{3,})'", source)} - {"LIMIT", "WITHSCORES", "COUNT", "LPOS"}
        self.assertEqual(used - {"TIME"}, {name for commands in COMMANDS for name in commands})
        for command in (*used, "EVAL", "EVALSHA", "MULTI"):
            with self.subTest(command):
                self.redis.acl_setuser("drain", enabled=True, commands=[f"-{command}"])
                self.assertEqual(self.check(), [f"The Redis user of the mail queue may not use: {command}."])
                self.redis.acl_setuser("drain", enabled=True, commands=[f"+{command}"])

    def test_the_check_names_each_denied_key(self) -> None:
        self.redis.acl_setuser("drain", enabled=True, reset_keys=True, keys=["MAIL_QUEUE*"])
        parts = ("payloads", "leases", "deliveries", "deferred")
        denied = ", ".join(f"{{{name}}}:{part}" for name in ("MAIL_QUEUE", "MAIL_QUEUE_PAUSED") for part in parts)
        self.assertEqual(self.check(), [f"The Redis user of the mail queue may not use: {denied}."])

    @skipUnless(hasattr(mail, "mailers"), "MAILERS came with Django 6.1")
    def test_the_check_covers_the_queues_of_all_mailers(self) -> None:
        mailers = {alias: {"BACKEND": BACKEND, "OPTIONS": {"host": "localhost"}} for alias in ("default", "news")}
        mailers["news"]["OPTIONS"]["queue"] = "NEWS"
        with override_settings(MAILERS=mailers):
            self.assertRegex("".join(self.check()), r"may not use: NEWS, \{NEWS\}:payloads, .* NEWS_DEAD, NEWS_PAUSED,")

    def test_the_check_reports_a_server_that_cannot_be_reached(self) -> None:
        url = f"redis://127.0.0.1:{free_port()}"
        with override_settings(QUEUE_BACKEND=ENGINE, MAIL_QUEUE_REDIS_URL=url):
            (problem,) = check_redis_permissions()
        self.assertEqual(problem.id, "mailqueue_backend.W011")
        self.assertIn(url.removeprefix("redis://"), problem.msg)

    def test_the_check_reports_a_replica(self) -> None:
        self.redis.execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
        self.addCleanup(self.redis.execute_command, "REPLICAOF", "NO", "ONE")
        self.assertRegex("".join(self.check()), "(?i)read.?only")
