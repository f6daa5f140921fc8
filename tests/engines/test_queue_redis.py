"""The Redis queue, and queue-front's redisd beside it, against a real server."""

from __future__ import annotations

import os
import sys
import time
from unittest import mock
from uuid import uuid4

from django.test import SimpleTestCase, override_settings

from mailqueue_backend.errors import QueueUnavailable
from mailqueue_backend.queues import adapt, open_queue
from mailqueue_backend.queues.base import Consumer, Counts, MessageQueue, Reservation, Settlement
from mailqueue_backend.queues.plain import PlainQueue
from mailqueue_backend.queues.redis import Queue, RedisdQueue
from tests import services
from tests.engines.queue_contract import OpensQueues, QueueContract, TakersContract
from tests.engines.redis_servers import Proxy, free_port

REDISD = {"QUEUE_BACKEND": "redisd", "QUEUE_REDIS_CONNECTION": services.REDIS}


def queue_at(url: str, name: str) -> Queue:
    with override_settings(MAIL_QUEUE_REDIS_URL=url):
        return Queue(name)


class OpensByName(OpensQueues):
    def make_queue(self, name: str) -> MessageQueue:
        queue = open_queue(name)
        assert isinstance(queue, Queue)
        # Also what a test has left reserved.
        self.addCleanup(queue._server.client.delete, *queue._keys)
        return queue


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="redisd")
class RedisdContractTests(OpensByName, QueueContract, TakersContract, SimpleTestCase):
    pass


@services.needs("Redis", services.redis_answers())
@override_settings(QUEUE_BACKEND="mailqueue_backend.queues.redis")
class RedisContractTests(OpensByName, QueueContract, TakersContract, SimpleTestCase):
    pass


class TakingMixin:
    """Steps of a taker; each consumer of theirs dies, so that what it holds stays reserved until its lease ends."""

    queue: Queue

    def consumer(self, lease: float = 60) -> Consumer:
        """Open a consumer whose connection is closed when the test ends, with whatever it holds."""
        consumer = self.queue.consumer(lease)
        self.addCleanup(consumer._connection.close)  # type: ignore[attr-defined]
        return consumer

    def take(self, lease: float = 60, consumer: Consumer | None = None) -> Reservation:
        """Reserve the one message that must be there."""
        (reservation,) = (consumer or self.consumer(lease)).exchange(wanted=1).reservations
        return reservation

    def settle(self, reservation: Reservation, how: str, *more: object) -> bool:
        (settled,) = self.consumer().exchange([Settlement(reservation, how, *more)]).settled  # type: ignore[arg-type]
        return settled


@services.needs("Redis", services.redis_answers())
class RedisTestCase(TakingMixin, SimpleTestCase):
    """A queue of its own name on the shared server."""

    url = f"redis://{services.REDIS}"

    def setUp(self) -> None:
        super().setUp()
        self.name = f"{services.PREFIX}_{uuid4().hex[:8]}"
        self.queue = queue_at(self.url, self.name)
        self.redis = self.queue._server.client
        self.keys = self.queue._keys
        self.addCleanup(self.redis.delete, *self.keys)

    def go_through_a_proxy(self, options: str = "") -> None:
        """Have the queue behind a proxy that can lose an answer, with the script loaded."""
        self.proxy = Proxy(services.REDIS)
        self.addCleanup(self.proxy.close)
        self.queue = queue_at(f"redis://{self.proxy.address}{options}", self.name)
        self.addCleanup(self.queue._server.hang_up)
        self.queue.counts()

    def the_list(self) -> list[bytes]:
        """Return what redisd and 0.1.2 see."""
        payloads: list[bytes] = self.redis.lrange(self.name, 0, -1)
        return payloads


class LeaseTests(RedisTestCase):
    def test_an_acknowledged_message_leaves_no_key_behind(self) -> None:
        self.queue.write(b"one")
        self.assertTrue(self.settle(self.take(), "ack"))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_a_lease_that_ended_can_be_settled_while_nobody_else_took_it(self) -> None:
        self.queue.write(b"one")
        reservation = self.take(0)
        self.assertTrue(self.settle(reservation, "ack"))
        self.assertFalse(self.settle(reservation, "ack"))

    def test_a_deferred_message_goes_to_the_tail_when_it_is_due(self) -> None:
        self.queue.write(b"one")
        self.settle(self.take(), "release", None, 0.001)
        self.queue.write_many(b"two", b"three")
        time.sleep(0.01)
        self.assertEqual(self.take().payload, b"two")
        self.assertEqual(self.the_list(), [b"three", b"one"])

    def test_two_deferred_messages_may_have_the_same_bytes(self) -> None:
        self.queue.write_many(b"same", b"same")
        for _ in range(2):
            self.settle(self.take(), "release", None, 60)
        self.assertEqual(self.queue.counts().deferred, 2)
        self.assertEqual(self.redis.exists(self.keys[3]), 0, "what is deferred has no deliveries")

    def test_read_takes_what_is_due_first_then_the_deferred_and_not_what_is_reserved(self) -> None:
        self.queue.write_many(b"late", b"early", b"reserved", b"expired", b"waits")
        self.settle(self.take(), "release", None, 60)
        self.settle(self.take(), "release", None, 30)
        self.take()
        self.take(0)
        self.assertEqual(self.queue.read_many(9), [b"expired", b"waits", b"early", b"late"])
        self.assertIsNone(self.queue.read())

    def test_a_group_is_one_call_of_the_script(self) -> None:
        self.go_through_a_proxy()
        self.queue.write_many(*[b"%d" % number for number in range(8)])
        consumer = self.consumer()
        settlements = [Settlement(each, "ack") for each in consumer.exchange(wanted=4).reservations]
        with mock.patch.object(consumer._connection, "execute", wraps=consumer._connection.execute) as execute:
            answer = consumer.exchange(settlements, 4)
        self.assertEqual((answer.settled, len(answer.reservations)), ([True] * 4, 4))
        self.assertEqual([call.args[0] for call in execute.call_args_list], ["EVALSHA"])

    def test_a_large_message_survives_every_move(self) -> None:
        payload = os.urandom(25_000_000)
        self.queue.write(payload)
        self.settle(self.take(), "release", None, 0.001)
        time.sleep(0.01)
        self.take(0)
        self.settle(self.take(), "bury")
        self.assertTrue(queue_at(self.url, self.queue.dead_name).read() == payload)

    def test_more_than_a_thousand_can_be_held_and_put_back(self) -> None:
        payloads = [b"%d" % number for number in range(2500)]
        self.queue.write_many(*payloads)
        consumer = self.consumer()
        self.assertEqual([len(consumer.exchange(wanted=2500).reservations) for _ in range(4)], [1000, 1000, 500, 0])
        consumer.close()
        self.assertEqual(self.the_list(), payloads)
        self.assertEqual(self.redis.exists(*self.keys), 1)

    def test_what_take_reserved_is_put_back_to_its_time(self) -> None:
        self.queue.write_many(b"deferred", b"expired", b"expired too")
        self.settle(self.take(), "release", None, 60)
        dead = self.consumer(0)
        dead.exchange(wanted=2)
        before = [self.redis.zrange(key, 0, -1, withscores=True)[-1][1] for key in (self.keys[2], self.keys[4])]
        (deferred,) = self.queue.browse("deferred", 1)
        with self.queue.consumer(60) as consumer:
            for entry in (deferred, self.queue.browse("due", 2)[1]):
                self.assertEqual(consumer.take(entry).payload, entry.payload)
        after = [self.redis.zrange(key, 0, -1, withscores=True)[-1][1] for key in (self.keys[2], self.keys[4])]
        self.assertEqual(after, before)
        self.assertEqual([entry.deliveries for entry in self.queue.browse("due", 2)], [1, 1])

    def test_what_was_deferred_when_it_was_listed_can_be_taken_from_the_list(self) -> None:
        self.queue.write(b"one")
        self.settle(self.take(), "release", None, 0.001)
        time.sleep(0.01)
        (entry,) = self.queue.browse("due", 2)
        self.queue.write(b"two")
        with self.queue.consumer(60) as other, self.queue.consumer(60) as consumer:
            other.exchange(wanted=1)
            self.assertEqual(self.the_list(), [b"one"])
            self.assertEqual(consumer.take(entry).payload, b"one")


class OldLayoutTests(RedisTestCase):
    """What the release before has left: its receipts were 32 hex digits."""

    def setUp(self) -> None:
        super().setUp()
        waiting, payloads, leases, deliveries, deferred, dead = self.keys
        expired, reserved, ready, later = (uuid4().hex for _ in range(4))
        now = time.time() * 1_000_000
        self.redis.rpush(waiting, b"waits")
        self.redis.rpush(dead, b"dead")
        bodies = {expired: b"expired", reserved: b"reserved", ready: b"ready", later: b"later"}
        self.redis.hset(payloads, mapping=bodies)
        self.redis.zadd(leases, {expired: now - 1_000_000, reserved: now + 300_000})
        self.redis.hset(deliveries, mapping={expired: 2, reserved: 1})
        self.redis.zadd(deferred, {ready: now - 1_000_000, later: now + 60_000_000})

    def test_all_of_it_is_counted_and_listed(self) -> None:
        self.assertEqual(self.queue.counts(), Counts(waiting=4, due=3, deferred=1, reserved=1, dead=1))
        listed = {
            state: [each.payload for each in self.queue.browse(state, 9)] for state in ("due", "deferred", "dead")
        }
        self.assertEqual(listed, {"due": [b"expired", b"ready", b"waits"], "deferred": [b"later"], "dead": [b"dead"]})

    def test_all_that_is_due_is_drained(self) -> None:
        drained: list[tuple[bytes, int]] = []
        with self.queue.consumer(60) as consumer:
            for _ in range(2):
                while reservations := consumer.exchange(wanted=1).reservations:
                    drained += [(each.payload, each.deliveries) for each in reservations]
                    consumer.exchange([Settlement(each, "ack") for each in reservations])
                time.sleep(0.3)
        self.assertEqual(drained, [(b"expired", 3), (b"waits", 1), (b"ready", 1), (b"reserved", 2)])
        self.assertEqual(self.queue.counts(), Counts(waiting=1, due=0, deferred=1, reserved=0, dead=1))


class BrowseTests(RedisTestCase):
    def test_a_place_in_the_list_is_found_again_with_and_without_lpos(self) -> None:
        payloads = [b"%04d" % number for number in range(500)]
        for denied in ("", "LPOS"):
            with self.subTest(denied=denied):
                self.redis.delete(self.name)
                self.queue.write_many(*payloads)
                page = self.queue.browse("due", 400)
                # What came before it was consumed in part; was put back; is gone with it.
                for consumed, expected in ((250, payloads[400]), (10, payloads[400]), (140, payloads[400])):
                    self.redis.ltrim(self.name, consumed, -1)
                    with mock.patch.object(self.queue._script, "_evaluate", self.without(denied)):
                        self.assertEqual(self.queue.browse("due", 1, page[-1])[0].payload, expected)

    def without(self, command: str):
        """Call the script as a server would run it that does not know this command."""
        from mailqueue_backend.queues.redis.script import _source

        text = _source().text.replace(f"pcall('{command}'", "pcall('NOSUCHCOMMAND'") if command else _source().text

        def evaluate(execute, call):
            return execute("EVAL", text, len(self.keys), *self.keys, *call)

        return evaluate

    def test_a_message_whose_payload_is_gone_is_not_listed(self) -> None:
        self.queue.write_many(b"one", b"two", b"three")
        reservations = [self.take(), self.take(), self.take()]
        self.redis.hdel(self.keys[1], reservations[0].receipt)
        self.assertEqual([entry.payload for entry in self.queue.browse("reserved", 1)], [b"two"])


class GoneTests(RedisTestCase):
    """The hash of the payloads was deleted or evicted: what was in it is gone, and blocks nothing."""

    def test_what_is_due_is_passed_over(self) -> None:
        self.queue.write_many(b"deferred", b"expired", b"three")
        self.settle(self.take(), "release", None, 0.05)
        self.take(0)
        self.redis.delete(self.keys[1])
        time.sleep(0.06)
        self.assertEqual(self.take().payload, b"three")
        self.assertEqual(self.queue.counts(), Counts(waiting=0, due=0, deferred=0, reserved=1, dead=0))

    def test_what_is_reserved_can_be_settled(self) -> None:
        self.queue.write_many(b"suspect", b"1", b"2", b"3", b"4", b"5")
        self.take(0)
        suspect, consumer = self.take(), self.consumer()
        held = consumer.exchange(wanted=5).reservations
        self.redis.delete(self.keys[1])
        ends = [("ack",), ("release",), ("release", b"new"), ("bury",), ("put_back",)]
        settlements = [Settlement(each, *end) for each, end in zip(held, ends, strict=True)]
        answer = consumer.exchange([*settlements, Settlement(suspect, "put_back")], 1)
        self.assertEqual(answer.settled, [True, False, True, False, False, False])
        self.assertEqual([each.payload for each in answer.reservations], [b"new"])

    def test_what_was_listed_cannot_be_taken(self) -> None:
        self.queue.write(b"one")
        self.take(0)
        (entry,) = self.queue.browse("due", 1)
        self.redis.delete(self.keys[1])
        self.assertIsNone(self.consumer().take(entry))
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_what_is_deferred_can_be_read_over(self) -> None:
        self.queue.write_many(b"1", b"2")
        for _ in range(2):
            self.settle(self.take(), "release", None, 60)
        (first,) = self.queue.browse("deferred", 1)
        self.redis.hdel(self.keys[1], first.key)
        self.assertEqual(self.queue.read_many(2), [b"2"])


class WriteTests(RedisTestCase):
    def test_the_list_holds_the_bytes_in_order_as_redisd_writes_them(self) -> None:
        self.assertEqual(self.queue.write_many(b"one", b"two"), [True, True])
        self.assertIs(self.queue.write(b"\0three"), True)
        self.assertEqual(self.queue.write_many(), [])
        self.assertEqual(self.the_list(), [b"one", b"two", b"\0three"])

    def test_a_batch_with_one_bad_payload_stores_nothing(self) -> None:
        with self.assertRaises(QueueUnavailable):
            self.queue.write_many(b"one", None)  # type: ignore[arg-type]
        self.assertEqual(self.the_list(), [])

    def test_a_key_of_another_type_is_left_alone(self) -> None:
        self.redis.set(self.name, "a stranger's")
        for operation in (lambda: self.queue.write(b"one"), self.take, self.queue.counts, self.queue.read):
            with self.assertRaisesRegex(QueueUnavailable, "WRONGTYPE"):
                operation()
        self.assertEqual(self.redis.get(self.name), b"a stranger's")


class LostAnswerTests(RedisTestCase):
    """A command is carried out, and the connection breaks before its answer arrives."""

    def setUp(self) -> None:
        super().setUp()
        # The option is one for trouble: it must not get its way.
        self.go_through_a_proxy("?retry_on_timeout=1")

    def test_a_write_raises_and_is_not_stored_twice(self) -> None:
        self.proxy.lose = b"RPUSH"
        with self.assertRaisesRegex(QueueUnavailable, self.proxy.address):
            self.queue.write(b"one")
        self.assertEqual(self.the_list(), [b"one"])
        self.queue.write(b"two")
        self.assertEqual(self.the_list(), [b"one", b"two"])

    def test_an_exchange_gets_the_same_answer_again(self) -> None:
        self.queue.write_many(b"one", b"two", b"three", b"four")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        self.proxy.lose = b"EVALSHA"
        answer = consumer.exchange([Settlement(first, "ack")], 2)
        self.assertEqual(answer.settled, [True])
        self.assertEqual(
            [(each.payload, each.deliveries) for each in answer.reservations], [(b"two", 1), (b"three", 1)]
        )
        self.assertEqual(self.the_list(), [b"four"])

    def test_an_exchange_that_did_not_arrive_is_made(self) -> None:
        self.queue.write_many(b"one", b"two")
        consumer = self.consumer()
        first = self.take(consumer=consumer)
        # As a server does that restarts.
        consumer._connection._connection._sock.close()
        answer = consumer.exchange([Settlement(first, "ack")], 1)
        self.assertEqual((answer.settled, answer.reservations[0].payload), ([True], b"two"))

    def test_a_settlement_is_not_mistaken_for_a_late_one(self) -> None:
        for how in ("ack", "release", "bury", "put_back"):
            with self.subTest(how):
                self.queue.write(b"one")
                consumer = self.consumer()
                reservation = self.take(consumer=consumer)
                self.proxy.lose = b"EVALSHA"
                self.assertEqual(consumer.exchange([Settlement(reservation, how)]).settled, [True])
                self.assertEqual(self.queue.counts().reserved, 0)
                self.redis.delete(*self.keys)

    def test_a_late_settlement_is_still_seen_to_be_late(self) -> None:
        self.queue.write(b"one")
        consumer = self.consumer(0)
        late = self.take(consumer=consumer)
        self.take()
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(consumer.exchange([Settlement(late, "ack")]).settled, [False])

    def test_an_extended_lease_is_known_to_hold(self) -> None:
        self.queue.write(b"one")
        consumer = self.consumer(0.3)
        reservation = self.take(consumer=consumer)
        consumer.lease = 60
        consumer.extend([])
        self.proxy.lose = b"EVALSHA"
        consumer.extend([reservation])
        time.sleep(0.3)
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(consumer.exchange([Settlement(reservation, "ack")]).settled, [True])

    def test_a_taken_message_is_taken_once(self) -> None:
        self.queue.write_many(b"one", b"one")
        entry = self.queue.browse("due", 1)[0]
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(self.consumer().take(entry).payload, b"one")
        self.assertEqual(self.the_list(), [b"one"])

    def test_a_read_loses_nothing(self) -> None:
        self.queue.write(b"one")
        self.proxy.lose = b"EVALSHA"
        self.assertEqual(self.queue.read(), b"one")
        self.assertEqual(self.redis.exists(*self.keys), 0)


class InterruptTests(RedisTestCase):
    """A command is sent, and the taker is interrupted before it has read the answer."""

    def test_an_interrupt_between_command_and_answer_mixes_up_no_answers(self) -> None:
        for step, left in (("send_command", [b"one", b"two", b"three"]), ("read_response", [b"two", b"three"])):
            with self.subTest(step):
                self.queue.write_many(b"one", b"two", b"three")
                consumer = self.consumer()
                settlements = [Settlement(self.take(consumer=consumer), "ack")]
                interrupted = mock.patch.object(consumer._connection._connection, step, side_effect=KeyboardInterrupt)
                with interrupted, self.assertRaises(KeyboardInterrupt):
                    consumer.exchange(settlements, 1)
                consumer.close()
                self.assertEqual(self.the_list(), left)
                self.redis.delete(*self.keys)

    def test_take_first_learns_what_an_exchange_has_reserved(self) -> None:
        self.queue.write_many(b"one", b"two")
        entry = self.queue.browse("due", 2)[1]
        consumer = self.consumer()
        consumer.exchange()
        with mock.patch.object(consumer._connection._connection, "read_response", side_effect=KeyboardInterrupt):
            self.assertRaises(KeyboardInterrupt, consumer.exchange, wanted=1)
        self.assertEqual(consumer.take(entry).payload, b"two")
        self.assertEqual([each.payload for each in consumer.held.values()], [b"one", b"two"])


class RedisdTests(RedisTestCase):
    """Side by side with queue-front's redisd, which is all that 0.1.2 uses."""

    def setUp(self) -> None:
        super().setUp()
        settings = override_settings(**REDISD)
        settings.enable()
        self.addCleanup(settings.disable)
        from queue_front.backends import redisd

        self.redisd = redisd
        self.old = redisd.Queue(self.name)
        self.queue = RedisdQueue(self.name)

    def test_each_reads_what_the_other_wrote(self) -> None:
        self.old.write_many(b"old 1", b"old 2")
        self.queue.write_many(b"new 1", b"new 2")
        self.assertEqual(self.take().payload, b"old 1")
        self.assertEqual([self.old.read(), self.old.read()], [b"old 2", b"new 1"])
        self.assertEqual(self.queue.read(), b"new 2")

    def test_redisd_does_not_see_what_is_reserved_until_it_is_released(self) -> None:
        self.old.write(b"one")
        reservation = self.take()
        self.assertEqual((len(self.old), self.old.read()), (0, None))
        self.settle(reservation, "release", b"one again")
        self.assertEqual((len(self.old), self.old.read()), (1, b"one again"))

    def test_a_drain_counts_an_expired_lease_though_the_list_is_empty(self) -> None:
        self.old.write(b"one")
        self.take(0)
        self.assertEqual((len(self.old), len(self.queue)), (0, 1))
        self.assertEqual(self.take().payload, b"one")

    def test_everything_that_is_due_can_be_put_back_for_redisd_as_the_readme_says(self) -> None:
        self.old.write_many(b"deferred", b"expired", b"waits")
        self.settle(self.take(), "release", None, 0.001)
        self.take(0)
        time.sleep(0.01)
        for _ in range(self.queue.counts().due):
            self.settle(self.take(600), "release")
        self.assertEqual(sorted(self.old.read_many(3)), [b"deferred", b"expired", b"waits"])
        self.assertEqual(self.redis.exists(*self.keys), 0)

    def test_a_queue_of_redisd_itself_is_upgraded_in_place(self) -> None:
        class SitesOwn(self.redisd.Queue):  # type: ignore[name-defined, misc]
            pass

        upgraded = adapt(self.old)
        self.assertIs(type(upgraded), RedisdQueue)
        self.assertEqual(upgraded.name, self.name)
        self.assertIs(type(adapt(SitesOwn(self.name))), PlainQueue)

    def test_queue_backend_chooses_the_class(self) -> None:
        for backend, expected in (
            ("redisd", RedisdQueue),
            ("queue_front.backends.redisd", RedisdQueue),
            ("mailqueue_backend.queues.redis", Queue),
        ):
            with self.subTest(backend), override_settings(QUEUE_BACKEND=backend, MAIL_QUEUE_REDIS_URL=self.url):
                self.assertIs(type(open_queue(self.name)), expected)

    def test_its_error_is_one_of_queue_front_too(self) -> None:
        from queue_front import QueueException

        address = f"127.0.0.1:{free_port()}"
        with override_settings(QUEUE_REDIS_CONNECTION=address):
            queue = RedisdQueue(self.name)
        with self.assertRaisesRegex(QueueException, f"{address}.*QUEUE_REDIS_CONNECTION") as caught:
            queue.write(b"one")
        self.assertIsInstance(caught.exception, QueueUnavailable)

    def test_its_error_needs_no_queue_front(self) -> None:
        with override_settings(QUEUE_REDIS_CONNECTION=f"127.0.0.1:{free_port()}"):
            queue = RedisdQueue(self.name)
        with mock.patch.dict(sys.modules), self.assertRaises(QueueUnavailable):
            del sys.modules["queue_front"]
            queue.write(b"one")
