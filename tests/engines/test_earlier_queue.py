"""A queue filled by an earlier version is drained, and each message is sent once.

earlier_queues/ holds the rows and the keys that the code of commit 2f48cc9 wrote. It reserved one message at a time
and stored no ids. There are two new messages, one already delivered to one of its two recipients, one with an expired
lease, one with a running lease, one deferred, and one buried.
"""

from __future__ import annotations

import json
from base64 import b64decode
from datetime import datetime, timedelta, timezone
from typing import Any

from django.db import connection
from django.test import override_settings

from mailqueue_backend.envelope import loads
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.base import MessageQueue
from tests import TOP, services
from tests.cases import MailTestCase, process_mail_queue

DIRECTORY = TOP / "tests" / "earlier_queues"
NAME = f"{services.PREFIX}_earlier"

DUE = ["expired lease", "first", "partly delivered", "second"]
#: Age of the queue, in seconds, at which every lease has ended and the deferred message is due.
LATER = 4000


def read(name: str) -> Any:
    return json.loads((DIRECTORY / f"{name}.json").read_text(encoding="utf-8"))


class EarlierQueueContract:
    """The promises of each engine. load() fills the queue as if it had been written ``age`` seconds ago."""

    def load(self, age: float = 0) -> None:
        raise NotImplementedError

    def assertSent(self, subjects: list[str]) -> None:
        self.assertIn(f"{len(subjects)} messages sent and 0 ", process_mail_queue())
        self.assertEqual(sorted(self.inbox.subjects), subjects)

    def test_due_messages_are_sent_and_the_others_stay(self) -> None:
        self.load()
        self.assertEqual(self.queue.counts(), (5, 4, 1, 1, 1))
        self.assertSent(DUE)
        self.assertEqual(self.queue.counts(), (1, 0, 1, 1, 1))

    def test_the_others_are_sent_once_they_are_due(self) -> None:
        self.load(age=LATER)
        self.assertSent(sorted([*DUE, "deferred", "running lease"]))
        self.assertEqual(self.queue.counts(), (0, 0, 0, 0, 1))

    def test_recipient_who_accepted_does_not_get_a_second_copy(self) -> None:
        self.load()
        process_mail_queue()
        recipients = {str(message["Subject"]): to for _, to, message in self.inbox.received}
        self.assertEqual(recipients["partly delivered"], ["two@example.com"])

    def test_counts_of_deliveries_and_attempts_are_kept(self) -> None:
        self.load(age=LATER)
        entries = self.queue.browse("due", 9)
        self.assertEqual(sorted(entry.deliveries for entry in entries), [0, 0, 0, 0, 1, 2])
        metas = [loads(entry.payload).meta for entry in entries]
        self.assertEqual(sorted(meta.attempts for meta in metas), [0, 0, 0, 0, 1, 1])


class DatabaseTests(EarlierQueueContract, MailTestCase):
    def load(self, age: float = 0) -> None:
        fixture = read("sqlite")
        passed = datetime.now(timezone.utc).replace(tzinfo=None) - datetime.fromisoformat(fixture["now"])
        shift = passed - timedelta(seconds=age)
        with connection.cursor() as cursor:
            for row in fixture["rows"]:
                # Keep the number of digits: SQLite compares timestamps as text.
                digits = "milliseconds" if len(row["due"]) == len(fixture["now"]) else "microseconds"
                due = (datetime.fromisoformat(row["due"]) + shift).isoformat(sep=" ", timespec=digits)
                cursor.execute(
                    "INSERT INTO mailqueue_database_queuedmessage (queue, due, receipt, deliveries, payload)"
                    " VALUES (%s, %s, %s, %s, %s)",
                    [row["queue"], due, row["receipt"], row["deliveries"], b64decode(row["payload"])],
                )


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="redisd", MAIL_QUEUE_NAME=NAME)
class RedisTests(EarlierQueueContract, MailTestCase):
    @property
    def queue(self) -> MessageQueue:
        return open_queue(NAME)

    def load(self, age: float = 0) -> None:
        import redis

        client, fixture = redis.Redis.from_url(f"redis://{services.REDIS}"), read("redis")
        self.addCleanup(client.close)
        seconds, microseconds = client.time()
        shift = int(seconds * 1_000_000 + microseconds - fixture["now"] - age * 1_000_000)
        keys = {part: f"{{{NAME}}}:{part}" for part in ("payloads", "leases", "deliveries", "deferred")}
        self.addCleanup(client.delete, NAME, f"{NAME}_DEAD", *keys.values())
        client.rpush(NAME, *map(b64decode, fixture["list"]))
        client.rpush(f"{NAME}_DEAD", *map(b64decode, fixture["dead"]))
        client.hset(keys["payloads"], mapping={key: b64decode(data) for key, data in fixture["payloads"].items()})
        client.hset(keys["deliveries"], mapping=fixture["deliveries"])
        for part in ("leases", "deferred"):
            client.zadd(keys[part], {key: time + shift for key, time in fixture[part].items()})
