"""Messages that are not tried yet, not any more, not here, or not for all: on each kind of queue."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage
from django.test import SimpleTestCase, TransactionTestCase, override_settings

from mailqueue_backend.delivery import in_flight
from mailqueue_backend.delivery.limits import StopRequest
from mailqueue_backend.delivery.troubles import Troubles
from mailqueue_backend.envelope import dumps, loads
from mailqueue_backend.errors import DiscardLogError, QueueUnavailable, UnstorableMessage
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.settings import conf
from tests import services
from tests.smtp import always, by_recipient

from .feed.base import FeedMixin

ME, YOU, BOSS = "me@here.example", "you@there.example", "Boss <Boss@There.example>"
DELIVERY = "mailqueue_backend.delivery"


class Counting(EmailMessage):
    """A message that recipients() changes."""

    def recipients(self) -> list[str]:
        self.body += " again"
        return super().recipients()


class HookBackend(QueuedEmailBackend):
    """A class of 2015, which may send to anybody."""

    def _send_queued_messages(self, *args: Any) -> Any:
        return super()._send_queued_messages(*args)


class Contract(FeedMixin):
    def setUp(self) -> None:
        super().setUp()
        self.dead = self.queue.sibling(self.queue.dead_name)
        self.addCleanup(self.dead.read_many, 999)

    def send(self, *subjects: str, to: Any = (ME,), cc: Any = (), **attributes: Any) -> None:
        messages = [EmailMessage(subject, "Body", "from@example.com", list(to), cc=list(cc)) for subject in subjects]
        for email in messages:
            vars(email).update(attributes)
        self.backend().send_messages(messages)

    def discards(self) -> str:
        log = Path(conf.MAIL_QUEUE_LOG_FILENAME)
        return log.read_text(encoding="utf-8") if log.exists() else ""

    def received(self) -> list[tuple[str, list[str]]]:
        return [(stored.subject, [*stored.recipients]) for stored in self.smtp.stored]

    def set_aside(self) -> list[tuple[str, list[str] | None]]:
        """Return the subject and the remaining recipients of each dead message."""
        payloads = self.dead.read_many(99)
        if payloads:
            self.dead.write_many(*payloads)
        return [(envelope.email.subject, envelope.meta.remaining) for envelope in map(loads, payloads)]


class ScheduleContract(Contract):
    """send_at, where the queue can hold a message, and expires_at."""

    def test_a_message_is_not_sent_before_its_time(self) -> None:
        self.need("delays")
        self.send("later", send_at=time.time() + 0.3)
        self.send("now", send_at=time.time() - 100)
        self.assertEqual((self.drain().length, self.sent()), (1, ["now"]))
        time.sleep(0.35)
        self.assertEqual((self.drain().sent, self.sent()), (1, ["now", "later"]))

    def test_a_queue_that_cannot_hold_it_says_so(self) -> None:
        if self.queue.delays:
            self.skipTest("It can.")
        with self.assertRaisesRegex(UnstorableMessage, "cannot hold a message until its send_at; send it when"):
            self.send("later", send_at=time.time() + 60)
        self.assertEqual(len(self.queue), 0)

    def test_expiry_and_backoff_count_from_send_at(self) -> None:
        self.need("delays")
        self.script = always("dot", "451 later")
        self.send("a", send_at=time.time() + 0.1)
        time.sleep(0.15)
        payload = self.queue.read()
        assert payload is not None
        envelope = loads(payload)
        envelope.meta.created_epoch -= 90_000
        envelope.meta.write(envelope.extra)
        self.queue.write(dumps(envelope))
        with override_settings(MAIL_QUEUE_RETRY_DELAY=60):
            self.assertEqual(self.drain().requeued, 1)
        (entry,) = self.queue.browse("deferred", 2)
        self.assertLess(entry.due or 0, time.time() + 100)
        self.assertEqual((self.left()[0].meta.send_at, self.discards()), (envelope.meta.send_at, ""))

    def test_a_message_that_is_over_is_discarded_untried(self) -> None:
        self.send("over", expires_at=time.time() - 1)
        self.send("not yet", expires_at=time.time() + 60)
        report = self.drain()
        self.assertEqual((report.sent, report.discarded, self.sent()), (1, 1, ["not yet"]))
        self.assertRegex(
            self.discards(), r"Message Expired\. .* To:me@here.example\. Error: its expires_at, .* has passed"
        )

    def test_a_message_that_is_over_after_an_attempt_names_its_error(self) -> None:
        self.script = always("dot", "451 busy")
        self.send("a", expires_at=time.time() + 60)
        self.drain()
        with mock.patch("mailqueue_backend.envelope.meta.time.time", return_value=time.time() + 100):
            self.assertEqual(self.drain().discarded, 1)
        self.assertRegex(self.discards(), "has passed; last error: 451 busy")
        self.assertEqual((self.smtp.said("MAIL"), len(self.queue)), (1, 0))

    def test_a_message_that_is_over_stays_if_its_line_cannot_be_written(self) -> None:
        self.send("a", expires_at=time.time() - 1)
        with mock.patch("mailqueue_backend.delivery.policy.log_discard", side_effect=DiscardLogError):
            self.assertEqual(self.drain().requeued, 1)
        self.assertLeft("a")
        self.assertEqual(self.left()[0].meta.attempts, 0)


class SiteContract(Contract):
    """MAIL_QUEUE_SITE: the mail of another site is left alone."""

    def check_left_alone(self, **options: Any) -> None:
        report = self.drain(stop=StopRequest(), **options)
        self.assertEqual((report.tried, self.sent(), self.discards()), (0, [], ""))
        counts = self.queue.counts()
        self.assertEqual((counts.due, counts.deferred, counts.dead), (0, 2, 0) if self.queue.delays else (2, 0, 0))
        self.assertEqual([envelope.meta.attempts for envelope in self.left()], [0, 0])

    def test_a_drain_of_another_site_releases_its_mail_and_says_so_once(self) -> None:
        for ours, text in (("staging", "is 'staging'"), (None, "is not set"), ("", "is not set")):
            with self.subTest(ours):
                self.start_anew()
                with override_settings(MAIL_QUEUE_SITE="shop"):
                    self.send("a", "b")
                before = sorted(dumps(envelope) for envelope in self.left())
                with override_settings(MAIL_QUEUE_SITE=ours), self.assertLogs(DELIVERY, "WARNING") as logs:
                    self.check_left_alone()
                (line,) = logs.output
                self.assertIn("messages of the site 'shop' are not tried, but released for an hour", line)
                self.assertIn(f"MAIL_QUEUE_SITE {text} here", line)
                self.assertEqual(sorted(dumps(envelope) for envelope in self.left()), before)

    def test_a_loop_says_it_once(self) -> None:
        with override_settings(MAIL_QUEUE_SITE="shop"):
            self.send("a", "b")
        troubles = Troubles()
        with self.assertLogs(DELIVERY, "WARNING") as logs:
            for _ in range(2):
                self.check_left_alone(troubles=troubles)
        self.assertEqual(len(logs.output), 1)

    def test_another_secret_key_makes_no_difference(self) -> None:
        with override_settings(MAIL_QUEUE_SITE="shop"):
            self.send("a", "b")
        with override_settings(SECRET_KEY="another", MAIL_QUEUE_SITE="staging"):
            self.assertEqual(self.drain(stop=StopRequest()).buried, 0)
        self.assertEqual((self.queue.counts().waiting, self.queue.counts().dead), (2, 0))

    def test_the_hour_is_not_taken_for_a_clock_that_was_ahead(self) -> None:
        self.need("browsable")
        from mailqueue_backend.delivery.clock import describe_future

        with override_settings(MAIL_QUEUE_SITE="shop"):
            self.send("a")
        self.drain()
        self.assertEqual(self.queue.counts().deferred, 1)
        self.assertEqual(describe_future(self.queue, self.queue.counts()), "")

    def test_mail_of_this_site_and_of_none_is_delivered(self) -> None:
        self.send("none")
        with override_settings(MAIL_QUEUE_SITE="shop"):
            self.send("ours")
            self.assertEqual(self.drain().sent, 2)


class OnlyToContract(Contract):
    """MAIL_QUEUE_ONLY_TO: nobody else gets mail, and nothing is discarded."""

    @override_settings(MAIL_QUEUE_ONLY_TO=["ME@here.example", "@else.example"])
    def test_the_others_wait_in_the_dead_queue(self) -> None:
        self.send("mine", to=[ME, "Any <any@ELSE.example>"])
        self.send("ours", to=[ME, YOU], cc=[BOSS])
        self.send("theirs", to=[YOU, "x@sub.else.example"])
        with self.assertLogs(DELIVERY, "WARNING") as logs:
            report = self.drain()
        self.assertEqual((report.sent, report.buried, report.discarded), (2, 1, 0))
        self.assertEqual(self.received(), [("mine", [ME, "any@ELSE.example"]), ("ours", [ME])])
        self.assertCountEqual(self.set_aside(), [("ours", [YOU, BOSS]), ("theirs", None)])
        self.assertEqual((len(self.queue), self.discards()), (0, ""))
        whole, rest = sorted(logs.output)
        self.assertIn("is set aside in", whole)
        self.assertIn(f"for some recipients: MAIL_QUEUE_ONLY_TO does not allow {YOU}, {BOSS}", rest)

    @override_settings(MAIL_QUEUE_ONLY_TO=[])
    def test_an_empty_list_allows_nobody(self) -> None:
        self.send("a")
        self.assertEqual((self.drain().buried, self.sent(), self.set_aside()), (1, [], [("a", None)]))

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_a_failed_message_is_tried_again_for_those_who_are_allowed(self) -> None:
        self.send("a", to=[YOU, ME])
        self.script = by_recipient({ME: "451 later"})
        self.assertEqual((self.drain().requeued, self.set_aside()), (1, [("a", [YOU])]))
        self.assertEqual([envelope.meta.remaining for envelope in self.left()], [[ME]])
        self.script = lambda step, argument: None
        self.drain()
        self.assertEqual((self.received(), self.set_aside()), ([("a", [ME])], [("a", [YOU])]))

    def test_a_partly_delivered_message_is_set_aside_for_the_rest(self) -> None:
        self.send("a", to=["third@there.example", ME, YOU])
        self.script = by_recipient({ME: "451 later", YOU: "451 later"})
        self.drain()
        self.script = lambda step, argument: None
        with override_settings(MAIL_QUEUE_ONLY_TO=[ME]):
            self.drain()
        self.assertEqual([recipients for _, recipients in self.received()], [["third@there.example"], [ME]])
        self.assertEqual(self.set_aside(), [("a", [YOU])])

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_a_class_that_may_send_to_anybody_gets_no_message_that_is_partly_allowed(self) -> None:
        self.send("ours", to=[ME, YOU])
        self.send("mine")
        report = self.drain(HookBackend)
        self.assertEqual((report.buried, self.received()), (1, [("mine", [ME])]))
        self.assertEqual(self.set_aside(), [("ours", None)])

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_a_message_stays_whole_while_the_server_is_down(self) -> None:
        self.send("a", to=[ME, YOU])
        self.down()
        self.assertEqual((self.set_aside(), [envelope.meta.remaining for envelope in self.left()]), ([], [None]))

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME], MAIL_QUEUE_LEASE=0.3)
    def test_the_others_are_not_lost_if_the_dead_queue_is_unavailable(self) -> None:
        self.need("leases")
        self.send("a", to=[ME, YOU])
        self.set(PAUSES=(), SHORTEST_LEASE=0)
        unavailable = mock.patch("mailqueue_backend.delivery.in_flight.set_aside", side_effect=QueueUnavailable)
        with unavailable, mock.patch.object(in_flight, "retry_while_unavailable", lambda work, *_, **__: work()):
            self.assertRaises(QueueUnavailable, self.drain)
        self.assertEqual((self.received(), self.set_aside()), ([("a", [ME])], []))
        time.sleep(0.35)
        self.drain()
        self.assertEqual((self.set_aside(), self.queue.counts()), ([("a", [YOU])], (0, 0, 0, 0, 1)))

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_a_message_that_is_not_tried_stays_whole(self) -> None:
        self.script = always("MAIL", "451 4.7.1 too many messages")
        self.send(*"abcd", to=[ME, YOU])
        self.assertEqual(self.drain().requeued, 3)
        self.assertEqual(sorted(subject for subject, _ in self.set_aside()), ["a", "b", "c"])
        self.assertCountEqual([envelope.meta.remaining for envelope in self.left()], [[ME], [ME], [ME], None])

    def test_asking_a_message_for_its_recipients_does_not_change_it(self) -> None:
        for only_to in (None, [ME]):
            self.backend().send_messages([Counting("a", "Asked", "from@example.com", [ME])])
            with override_settings(MAIL_QUEUE_ONLY_TO=only_to):
                self.drain()
        without, with_setting = (stored.message.get_payload() for stored in self.smtp.stored)
        self.assertEqual(with_setting, without)

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_a_message_whose_recipients_cannot_be_restricted_is_set_aside_whole(self) -> None:
        for culprit in (f"{__name__}.Counting.recipients", "mailqueue_backend.delivery.admission.stored_for"):
            with self.subTest(culprit):
                self.backend().send_messages([Counting("a", "", "from@example.com", [ME, YOU])])
                with mock.patch(culprit, side_effect=RuntimeError("broken")):
                    self.assertEqual(self.drain().buried, 1)
                self.assertEqual((self.received(), self.set_aside()), ([], [("a", None)]))
                self.dead.read_many(9)

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_the_others_are_not_lost_after_an_interrupt(self) -> None:
        self.send("a", to=[ME, YOU])
        interrupted = mock.patch("mailqueue_backend.delivery.worker.Worker._dispose", side_effect=KeyboardInterrupt)
        with interrupted, self.assertRaises(KeyboardInterrupt):
            self.drain()
        self.assertEqual((self.received(), self.set_aside()), ([("a", [ME])], [("a", [YOU])]))
        self.assertEqual(len(self.queue), 0)

    @override_settings(MAIL_QUEUE_ONLY_TO=[ME])
    def test_several_workers_do_the_same(self) -> None:
        self.send(*(f"{number:02}" for number in range(50)), to=[ME, YOU])
        self.script = lambda step, argument: time.sleep(0.01) if step == "RCPT" else None  # type: ignore[func-returns-value]
        self.assertEqual(self.drain(workers=3).sent, 50)
        self.assertEqual({tuple(recipients) for _, recipients in self.received()}, {(ME,)})
        self.assertEqual(len(self.set_aside()), 50)


class AdmissionContract(ScheduleContract, SiteContract, OnlyToContract):
    pass


class DatabaseTests(AdmissionContract, TransactionTestCase):
    engine = "sqlite"


@services.needs("Redis", services.redis_answers())
class RedisTests(AdmissionContract, SimpleTestCase):
    engine = "redis"


class PlainTests(AdmissionContract, SimpleTestCase):
    engine = "dummy"
