"""What mail_queue says about a Redis server that does not keep its mail."""

from __future__ import annotations

from django.test import SimpleTestCase

from tests import services
from tests.engines.redis_cases import queue_at
from tests.engines.redis_servers import INSTALLED, OwnRedis


@services.needs("redis-server", services.redis_answers() and INSTALLED)
class DurabilityTests(SimpleTestCase):
    server: OwnRedis

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.server = OwnRedis()
        cls.addClassCleanup(cls.server.close)

    def setUp(self) -> None:
        self.queue = queue_at(self.server.url, "own")
        self.redis = self.queue._server.client

    def configure(self, **settings: str) -> str:
        """Change settings of the server, and return the warnings."""
        for name, value in settings.items():
            self.redis.config_set(name.replace("_", "-"), value)
        return " ".join(self.queue.warnings())

    def test_a_server_that_stores_its_data_is_fine(self) -> None:
        self.assertEqual(self.configure(appendonly="yes", save="", maxmemory_policy="noeviction"), "")
        self.assertEqual(self.configure(appendonly="no", save="60 1", maxmemory_policy="volatile-lru"), "")

    def test_a_server_without_persistence_is_reported(self) -> None:
        warning = self.configure(appendonly="no", save="", maxmemory_policy="noeviction")
        self.assertRegex(warning, r"^Redis at 127.0.0.1:\d+ loses all mail when it restarts: set appendonly yes\.$")

    def test_a_server_that_evicts_mail_is_reported(self) -> None:
        warning = self.configure(appendonly="yes", maxmemory_policy="allkeys-lru")
        self.assertRegex(warning, r"deletes mail when its memory is full \(maxmemory-policy allkeys-lru\)")

    def test_a_user_is_told_what_it_may_ask_for(self) -> None:
        self.configure(appendonly="no", save="", maxmemory_policy="allkeys-lru")
        for denied, expected in ((["-config"], 1), (["-config", "-info"], 0)):
            with self.subTest(denied):
                self.redis.execute_command("ACL", "SETUSER", "blind", "on", ">x", "~*", "+@all", *denied)
                blind = queue_at(f"redis://blind:x@127.0.0.1:{self.server.port}/0", "own")
                self.assertEqual(len(blind.warnings()), expected)
