"""Browsing: list the messages of each state in pages, without taking them."""

from __future__ import annotations

import json

from mailqueue_backend.queues.base import Entry, Settlement, State

from .base import LONG, OpensQueues, acks, payloads_of


class BrowseContract(OpensQueues):
    """The promises of browse()."""

    def test_each_state_is_listed_in_pages(self) -> None:
        self.need("browsable")
        expected = self.fill_all_states()
        before = self.queue.counts()
        for state, payloads in expected.items():
            with self.subTest(state):
                entries = self.pages(state)
                self.assertEqual(payloads_of(entries), payloads)
                self.assertEqual({entry.state for entry in entries}, {state})
                self.assertEqual({entry.deliveries for entry in entries}, {int(state == "reserved")})
        self.assertEqual(self.queue.counts(), before)
        self.assertEqual(self.queue.read_many(5), expected["due"])

    def fill_all_states(self) -> dict[State, list[bytes]]:
        """Put messages into each state; return their payloads in the order in which browse() lists them."""
        self.queue.write_many(*[b"%02d" % number + bytes(range(256)) for number in range(14)])
        consumer = self.consumer()
        taken = consumer.exchange(wanted=9).reservations
        expected: dict[State, list[bytes]] = {}
        if self.queue.delays:
            for delay, reservation in enumerate(taken[:3]):
                self.settle(consumer, reservation, "release", None, LONG + delay)
            expected["deferred"] = payloads_of(taken[:3])
        else:
            consumer.exchange(acks(taken[:3]))
        consumer.exchange([Settlement(reservation, "bury") for reservation in taken[3:6]])
        due = [b"%02d" % number + bytes(range(256)) for number in range(9, 14)]
        return expected | {"dead": payloads_of(taken[3:6]), "reserved": payloads_of(taken[6:]), "due": due}

    def test_a_state_without_messages_lists_nothing(self) -> None:
        self.need("browsable")
        for state in ("due", "deferred", "reserved", "dead"):
            self.assertEqual(self.queue.browse(state, 2), [])  # type: ignore[arg-type]

    def test_an_ended_lease_is_due(self) -> None:
        self.queue.write_many(b"a", b"b")
        self.reserve_and_die()
        self.assertEqual(sorted(payloads_of(self.pages("due"))), [b"a", b"b"])
        self.assertEqual((self.entry(b"a").deliveries, self.entry(b"b").deliveries), (1, 0))
        self.assertEqual(self.queue.browse("reserved", 2), [])

    def test_messages_that_stay_are_listed_whatever_happens_between_pages(self) -> None:
        payloads = [b"%02d" % number for number in range(30)]
        self.queue.write_many(*payloads)
        amounts = [3, 1, 0] * 5

        def take_from_the_head_and_write_at_the_tail() -> None:
            if amounts:
                self.queue.read_many(amounts.pop(0))
                self.queue.write(b"late")

        listed = payloads_of(self.pages("due", take_from_the_head_and_write_at_the_tail))
        stayed = set(payloads) & set(self.queue.read_many(100))
        self.assertGreater(len(stayed), 5)
        self.assertLessEqual(stayed, set(listed))

    def bookmarked(self, entry: Entry) -> Entry:
        """Return an entry that was stored as JSON."""
        return self.queue.entry_at(json.loads(json.dumps(self.queue.bookmark(entry))))

    def test_a_bookmark_finds_its_message_and_those_behind_it(self) -> None:
        self.need("browsable")
        for state in self.fill_all_states():
            first, *others = self.pages(state)
            with self.subTest(state):
                self.assertEqual(self.queue.refresh(self.bookmarked(first)), first)
                self.assertEqual(self.queue.browse(state, 9, self.bookmarked(first)), others)

    def test_a_bookmark_finds_a_message_that_has_moved(self) -> None:
        self.need("browsable")
        self.queue.write_many(*[b"%03d" % number for number in range(130)])
        kept = self.bookmarked(self.pages("due")[125])
        for taken in (3, 75, 47):  # it is the head then
            self.queue.read_many(taken)
            found = self.queue.refresh(kept)
            assert found is not None
            self.assertEqual(found.payload, b"125")

    def test_a_bookmark_of_a_message_that_is_gone_finds_nothing_and_continues(self) -> None:
        self.need("browsable")
        self.queue.write_many(b"a", b"b", b"c")
        kept = self.bookmarked(self.entry(b"a"))
        self.queue.read()
        self.assertIsNone(self.queue.refresh(kept))
        self.assertEqual(payloads_of(self.queue.browse("due", 9, kept)), [b"b", b"c"])

    def test_a_bookmark_of_a_deferred_message_finds_it_until_it_is_acted_on(self) -> None:
        self.need("browsable")
        self.need("delays")
        self.queue.write(b"a")
        consumer = self.consumer()
        self.settle(consumer, consumer.exchange(wanted=1).reservations[0], "release", None, LONG)
        kept = self.bookmarked(self.entry(b"a", "deferred"))
        taken = consumer.take(self.entry(b"a", "deferred"))
        assert taken is not None
        self.settle(consumer, taken, "ack")
        self.assertIsNone(self.queue.refresh(kept))
