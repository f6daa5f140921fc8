"""Attempts: after a 250 nothing turns a message into a failed one, and a try never changes what is stored."""

from __future__ import annotations

import pickle
import re
import threading
from datetime import datetime, timedelta
from enum import Enum
from hashlib import sha256
from itertools import product
from typing import Any
from unittest import mock

from django.core.mail import EmailMessage, EmailMultiAlternatives
from django.test import override_settings
from django.utils.safestring import mark_safe

from mailqueue_backend.envelope import Envelope, loads
from mailqueue_backend.mail.smtp import QueuedEmailBackend
from mailqueue_backend.queues import open_queue
from mailqueue_backend.queues.database.models import QueuedMessage
from tests.cases import MailTestCase, drain, enqueue, message
from tests.smtp import always, by_recipient, in_turn
from tests.smtp.cases import PIPELINING, ScriptedTestCase

ONE, TWO = "one@example.com", "two@example.com"
LATER = "450 later"
ID = re.compile(r"Message ([0-9a-f]{12}) ")


class Address:
    """A recipient that becomes a text when it is asked for."""

    def __init__(self, address: str) -> None:
        self.address = address

    def __str__(self) -> str:
        return self.address


class NamedAddress(str):
    """A text that looks different when it is printed."""

    def __str__(self) -> str:
        return f"Somebody <{str.__str__(self)}>"


class Staff(str, Enum):
    ONE = ONE
    TWO = TWO


class GeneratingMessage(EmailMessage):
    def recipients(self) -> Any:
        yield from super().recipients()


class FickleMessage(EmailMessage):
    """Names its recipients in another order, and in other words, each time it is asked."""

    asked = 0

    def recipients(self) -> list[Any]:
        self.asked += 1
        return [f"Number {self.asked} <{name}>" for name in super().recipients()[:: -1 if self.asked % 2 else 1]]


class FooterMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.body += "\nFooter"
        return super().message(**kwargs)


class AttachingMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.attach("footer.txt", "Footer", "text/plain")
        return super().message(**kwargs)


class EncryptingMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.body = "".join(map(chr, (ord(character) ^ 1 for character in self.body)))
        return super().message(**kwargs)


class LockingMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.lock = threading.Lock()
        return super().message(**kwargs)


class StreamingMessage(EmailMessage):
    def message(self, **kwargs: Any) -> Any:
        self.parts = (part for part in self.body)
        return super().message(**kwargs)


class HookedBackend(QueuedEmailBackend):
    """Overrides the hook, and changes nothing: what is tried is a copy made another way."""

    def _send_queued_messages(self, *args: Any) -> Any:
        return super()._send_queued_messages(*args)


KINDS = (QueuedEmailBackend, HookedBackend)


class AttemptTestCase(ScriptedTestCase):
    def store(self, *messages: EmailMessage, **kwargs: Any) -> None:
        self.backend().send_messages(list(messages), **kwargs)

    def envelope(self) -> Envelope:
        """Open the only message of the queue."""
        (payload,) = self.queue.read_many(9)
        self.queue.write(payload)
        return loads(payload)

    def deliver(self, kind: type[QueuedEmailBackend] = QueuedEmailBackend) -> None:
        """Drain until the queue is empty, from a server that refuses nothing any more."""
        self.smtp.script = lambda step, argument: None
        for _ in range(3):
            self.drain(self.backend(kind))
        self.assertEqual(len(self.queue), 0)


class InterruptedBackend(QueuedEmailBackend):
    """Sends to each recipient separately, and is interrupted after so many."""

    sends = 1

    def _send(self, email_message: Any) -> bool:
        for number, recipient in enumerate(email_message.recipients()):
            if number == self.sends:
                raise KeyboardInterrupt
            copy = EmailMessage("a", "Body", "from@example.com", [recipient])
            super()._send(copy)
        raise KeyboardInterrupt


class InterruptTests(AttemptTestCase):
    """What the server has accepted is not sent again."""

    def interrupt(self, sends: int) -> None:
        self.serve()
        self.store(message("a", [ONE, TWO]))
        with mock.patch.object(InterruptedBackend, "sends", sends), self.assertRaises(KeyboardInterrupt):
            self.drain(self.backend(InterruptedBackend))

    def test_before_anybody_has_it(self) -> None:
        self.interrupt(0)
        self.deliver()
        self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_when_one_has_it(self) -> None:
        self.interrupt(1)
        self.assertEqual(self.envelope().meta.remaining, [TWO])
        self.deliver()
        self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_when_all_have_it(self) -> None:
        self.interrupt(2)
        self.assertEqual((len(self.queue), self.smtp.deliveries), (0, {ONE: 1, TWO: 1}))


class Unrepeatable:
    """Can be pickled, and unpickles to what cannot."""

    def __reduce__(self) -> Any:
        return threading.Lock, ()


class UnrepeatableTests(AttemptTestCase):
    """A message that can be stored once."""

    def store_one(self, to: list[str]) -> None:
        first, second = message("a", to), message("b", [TWO])
        first.tag = Unrepeatable()  # type: ignore[attr-defined]
        self.store(first, second)

    def test_is_requeued_as_it_was_and_holds_up_no_other(self) -> None:
        self.serve(in_turn(DATA=[LATER]))
        self.store_one([ONE])
        report = self.failing_drain()
        self.assertEqual((report.sent, report.requeued), (1, 1))
        self.deliver()
        self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_is_set_aside_where_it_must_not_go_to_all_again(self) -> None:
        self.serve(by_recipient({ONE: LATER}))
        self.store_one([ONE, TWO])
        report = self.failing_drain()
        self.assertEqual((report.sent, report.buried, len(self.queue)), (1, 1, 0))
        self.assertTrue(any(f"only these are still to get it: {ONE}" in line for line in self.lines))


class RecipientTests(AttemptTestCase):
    def check(self, one: Any, two: Any, refused: str, **kwargs: Any) -> None:
        """Deliver to both: one of them is refused twice."""
        self.serve(by_recipient({refused: LATER}), **kwargs)
        self.store(message("a", [one, two]))
        self.failing_drain()
        self.failing_drain()
        self.deliver()
        self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_given_as_an_object(self) -> None:
        for kind, refused, extensions in product(
            (Address, NamedAddress, Staff, mark_safe), (ONE, TWO), ([], PIPELINING)
        ):
            with self.subTest(kind=kind, refused=refused, extensions=extensions):
                self.check(kind(ONE), kind(TWO), refused, extensions=extensions)

    @override_settings(MAIL_QUEUE_RETRY_REJECTED=False)
    def test_given_as_an_object_when_all_are_refused(self) -> None:
        for kind in (Address, NamedAddress, Staff, mark_safe):
            with self.subTest(kind=kind):
                self.serve(in_turn(RCPT=[LATER, LATER]))
                self.store(message("a", [kind(ONE), kind(TWO)]))
                self.failing_drain()
                self.deliver()
                self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_of_a_class_that_generates_them(self) -> None:
        for extensions in ([], PIPELINING):
            with self.subTest(extensions=extensions):
                self.serve(by_recipient({TWO: LATER}), extensions=extensions)
                self.store(GeneratingMessage("a", "Body", "from@example.com", [ONE, TWO]))
                self.failing_drain()
                self.assertEqual(self.envelope().meta.remaining, [TWO])
                self.deliver()
                self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_of_a_class_that_answers_differently_each_time(self) -> None:
        for refused, kind in product((ONE, TWO), KINDS):
            with self.subTest(refused=refused, kind=kind):
                self.serve(by_recipient({refused: LATER}))
                self.store(FickleMessage("a", "Body", "from@example.com", [ONE, TWO]))
                self.failing_drain(self.backend(kind))
                self.failing_drain(self.backend(kind))
                self.deliver(kind)
                self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})


class RenderingTests(AttemptTestCase):
    """Classes that change themselves when they are rendered."""

    def rendered(self, message: EmailMessage, kind: type[QueuedEmailBackend]) -> bytes:
        """Fail twice after the message was rendered, then deliver it; return what arrives."""
        self.serve(in_turn(dot=[LATER, LATER]))
        self.store(message)
        self.failing_drain(self.backend(kind))
        self.failing_drain(self.backend(kind))
        self.assertEqual(self.envelope().meta.attempts, 2)
        self.deliver(kind)
        (stored,) = self.smtp.stored
        return stored.content

    def test_footer_is_there_once(self) -> None:
        for kind, made in product(KINDS, (FooterMessage, AttachingMessage)):
            with self.subTest(kind=kind, made=made):
                content = self.rendered(made("a", "Body", "from@example.com", [ONE]), kind)
                self.assertEqual(content.count(b"Footer"), 1)

    def test_body_is_encrypted_once(self) -> None:
        for kind in KINDS:
            with self.subTest(kind=kind):
                content = self.rendered(EncryptingMessage("a", "Body", "from@example.com", [ONE]), kind)
                self.assertIn(b"\r\n\r\nCnex", content)

    def test_what_cannot_be_pickled_may_hang_on_a_rendered_message(self) -> None:
        for kind, made in product(KINDS, (LockingMessage, StreamingMessage)):
            with self.subTest(kind=kind, made=made):
                content = self.rendered(made("a", "Body", "from@example.com", [ONE]), kind)
                self.assertIn(b"\r\n\r\nBody", content)
        self.assertFalse(any("cannot be stored" in line for line in self.lines))


class SecondTryTests(AttemptTestCase):
    """The second try within a drain sends a fresh copy."""

    def check(self, made: type[EmailMessage], kind: type[QueuedEmailBackend]) -> None:
        self.store(message("first"), made("a", "Body", "from@example.com", [ONE]))
        self.assertEqual(self.drain(self.backend(kind)).sent, 2)
        self.assertEqual((self.smtp.connections, self.smtp.stored[-1].content.count(b"Footer")), (2, 1))

    def test_connection_that_has_carried_enough(self) -> None:
        for extensions, made, kind in product(([], PIPELINING), (FooterMessage, AttachingMessage), KINDS):
            with self.subTest(extensions=extensions, made=made, kind=kind):
                self.serve(in_turn(MAIL=[None, "421 enough"]), extensions=extensions)
                self.check(made, kind)

    def test_connection_that_is_out_of_step(self) -> None:
        for made, kind in product((FooterMessage, AttachingMessage), KINDS):
            with self.subTest(made=made, kind=kind):
                self.serve(in_turn(RCPT=[None, "354 what?"]), extensions=PIPELINING)
                self.check(made, kind)


class StoredTests(AttemptTestCase):
    def test_try_changes_nothing_but_what_is_noted_of_it(self) -> None:
        self.serve(in_turn(dot=[LATER, LATER]))
        original = EmailMultiAlternatives("a", "Body", "from@example.com", [ONE], headers={"X-One": "1"})
        original.attach_alternative("<p>Body", "text/html")
        original.attach("a.bin", b"\x00" * 100_000, "application/octet-stream")
        self.store(original, campaign={"spring": 1})
        before = self.envelope()
        for _ in range(2):
            self.failing_drain()
        after = self.envelope()
        self.assertEqual(vars(after.email), vars(before.email))
        self.assertEqual(after.created, before.created)
        noted, as_before = after.extra.pop("mailqueue"), before.extra.pop("mailqueue")
        self.assertEqual(after.extra, before.extra)
        self.assertEqual((noted.pop("attempts"), "later" in noted.pop("last_error")), (2, True))
        as_before.pop("attempts", None)
        self.assertEqual(noted, as_before)

    def test_message_that_is_partly_delivered_keeps_its_headers(self) -> None:
        self.serve(by_recipient({TWO: LATER}))
        self.store(message("a", [ONE, TWO]))
        before = vars(self.envelope().email)
        self.failing_drain()
        self.assertEqual(vars(self.envelope().email), before)
        self.deliver()
        self.assertEqual([stored.message["To"] for stored in self.smtp.stored], [f"{ONE}, {TWO}"] * 2)


class IdTests(AttemptTestCase):
    def old_payload(self, subject: str = "a", **kwargs: Any) -> bytes:
        """Write what 0.1.2 writes: no signature, and nothing of ours."""
        fields = {"email": message(subject, [ONE, TWO]), "created": datetime.now(), **kwargs}
        return pickle.dumps(fields, pickle.HIGHEST_PROTOCOL)

    def test_is_the_same_in_all_tries(self) -> None:
        self.serve(in_turn(dot=[LATER] * 3))
        self.store(message("a"))
        ids = {self.envelope().meta.id}
        for _ in range(3):
            self.failing_drain()
            ids |= {self.envelope().meta.id, *ID.findall(" ".join(self.lines))}
        self.assertEqual(len(ids), 1)

    def test_of_the_old_release_s_payload_is_its_digest_and_is_kept(self) -> None:
        self.serve(in_turn(dot=[LATER] * 3))
        payload = self.old_payload()
        expected = sha256(payload).hexdigest()[:12]
        self.queue.write(payload)
        self.assertEqual(self.envelope().meta.id, expected)
        for attempt in (1, 2, 3):
            self.failing_drain()
            self.assertEqual((self.envelope().meta.id, self.left()[0]["id"]), (expected, expected))
            self.assertRegex(self.lines[0], rf"^{expected} to .*\(attempt {attempt}, ")

    def test_stands_in_the_discard_log(self) -> None:
        self.serve(by_recipient({TWO: "550 unknown"}))
        self.store(message("a", [ONE, TWO]))
        name = self.envelope().meta.id
        self.failing_drain()
        self.assertIn(f". Id: {name}. Message-ID: <", self.discards()[0])

    def test_of_the_old_release_s_payload_stands_in_the_discard_log_after_a_retry(self) -> None:
        self.serve(in_turn(dot=[LATER, LATER]))
        payload = self.old_payload(created=datetime.now() - timedelta(days=1))
        self.queue.write(payload)
        self.failing_drain(expire=10**6)
        self.failing_drain(expire=10)
        self.assertIn(f". Id: {sha256(payload).hexdigest()[:12]}. Message-ID: <", self.discards()[0])

    def test_stands_in_what_is_said_of_a_hook_that_fails(self) -> None:
        class Backend(QueuedEmailBackend):
            def _send_queued_messages(self, *args: Any) -> Any:
                raise ValueError("ours")

        self.serve()
        self.queue.write(payload := self.old_payload())
        self.failing_drain(self.backend(Backend))
        self.assertEqual(len(self.lines), 2)
        for line in self.lines:
            self.assertIn(sha256(payload).hexdigest()[:12], line)

    def test_stands_in_what_is_said_of_a_discard_that_cannot_be_logged(self) -> None:
        self.serve(in_turn(dot=[LATER]))
        self.store(message("a"))
        name = self.envelope().meta.id
        with override_settings(MAIL_QUEUE_LOG_FILENAME=str(self.directory)), mock.patch("sys.stderr"):
            self.failing_drain(expire=0)
        self.assertEqual([name in line for line in self.lines], [True, True])


class IdInTheDatabaseTests(MailTestCase):
    def stored_id(self) -> str:
        (entry,) = self.queue.browse("due", 9)
        return loads(entry.payload).meta.id

    def logged(self, backend: QueuedEmailBackend) -> list[str]:
        with self.assertLogs("mailqueue_backend.delivery", "WARNING") as logged:
            drain(backend)
        return [record.getMessage() for record in logged.records]

    def fail_once(self) -> str:
        """Store a message whose bytes are not those it was enqueued with any more; return its id."""
        enqueue("a")
        name = self.stored_id()
        with self.scripted(always("dot", "451 later")):
            self.logged(QueuedEmailBackend())
        return name

    def test_stands_in_what_is_said_of_a_lost_lease(self) -> None:
        class Backend(QueuedEmailBackend):
            def _send_queued_messages(self, *args: Any) -> Any:
                QueuedMessage.objects.all().delete()
                return super()._send_queued_messages(*args)

        name = self.fail_once()
        (line,) = self.logged(Backend())
        self.assertRegex(line, f"Message {name} was sent after its lease")

    def test_stands_in_what_is_said_of_a_message_that_is_set_aside(self) -> None:
        name = self.fail_once()
        QueuedMessage.objects.update(deliveries=3)
        (line,) = self.logged(QueuedEmailBackend())
        self.assertRegex(line, "is set aside in MAIL_QUEUE_DEAD: it was reserved by 3 processes that died")
        self.assertIn(f"Message {name},", line)
        self.assertEqual(loads(open_queue("MAIL_QUEUE_DEAD").read() or b"").meta.id, name)


class HookTests(AttemptTestCase):
    """A hook of the site's, around a try."""

    def test_what_it_leaves_survives(self) -> None:
        class Backend(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                email_message_dict["tries"] = email_message_dict.get("tries", 0) + 1
                email_message.subject += "!"
                return super()._send_queued_messages(email_message, expired, email_message_dict)

        self.serve(in_turn(dot=[LATER, LATER]))
        self.store(message("a"), campaign="spring")
        self.failing_drain(self.backend(Backend))
        self.failing_drain(self.backend(Backend))
        envelope = self.envelope()
        self.assertEqual((envelope.extra["tries"], envelope.extra["campaign"]), (2, "spring"))
        self.assertEqual((envelope.email.subject, envelope.meta.attempts), ("a!!", 2))
        self.drain(self.backend(Backend))
        self.assertEqual(self.smtp.copies, {"a!!!": 1})

    def test_what_it_leaves_survives_its_own_doqueue(self) -> None:
        class Backend(QueuedEmailBackend):
            def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                email_message_dict["seen"] = True
                email_message.subject = "changed"
                return self.DOQUEUE

        self.serve()
        self.store(message("a"))
        self.drain(self.backend(Backend))
        envelope = self.envelope()
        self.assertEqual((envelope.extra["seen"], envelope.email.subject, envelope.meta.attempts), (True, "changed", 0))

    def test_unpicklable_leavings_cost_nothing_but_themselves(self) -> None:
        def in_dict(email_message: Any, fields: Any) -> None:
            fields["lock"] = threading.Lock()

        def on_message(email_message: Any, fields: Any) -> None:
            email_message.lock = threading.Lock()

        for leave in (in_dict, on_message):

            class Backend(QueuedEmailBackend):
                def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                    leave(email_message, email_message_dict)  # noqa: B023
                    return super()._send_queued_messages(email_message, expired, email_message_dict)

            with self.subTest(leave=leave):
                self.serve(in_turn(dot=[LATER, LATER]))
                self.store(message("a"), campaign="spring")
                before = self.envelope()
                self.failing_drain(self.backend(Backend))
                self.failing_drain(self.backend(Backend))
                after = self.envelope()
                self.assertEqual((vars(after.email), after.extra["campaign"]), (vars(before.email), "spring"))
                self.assertEqual((after.meta.attempts, after.meta.id), (2, before.meta.id))
                self.deliver(Backend)

    def test_recipients_who_have_it_are_known_whatever_it_does_to_our_record(self) -> None:
        def remove(fields: Any) -> None:
            del fields["mailqueue"]

        def spoil(fields: Any) -> None:
            fields["mailqueue"] = {"remaining": "all"}

        def empty(fields: Any) -> None:
            fields.clear()

        for change, before in product((remove, spoil, empty), (True, False)):

            class Backend(QueuedEmailBackend):
                def _send_queued_messages(self, email_message: Any, expired: Any, email_message_dict: Any) -> Any:
                    if before and email_message_dict["mailqueue"].get("attempts"):  # noqa: B023
                        change(email_message_dict)  # noqa: B023
                    outcome = super()._send_queued_messages(email_message, expired, email_message_dict)
                    if not before:  # noqa: B023
                        change(email_message_dict)  # noqa: B023
                    return outcome

            with self.subTest(change=change, before=before):
                self.serve(by_recipient({TWO: LATER}))
                self.store(message("a", [ONE, TWO]))
                self.failing_drain(self.backend(Backend))
                self.failing_drain(self.backend(Backend))
                self.deliver()
                self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def raising(self) -> type[QueuedEmailBackend]:
        """Return a backend whose hook raises after each try."""

        class Backend(QueuedEmailBackend):
            def _send_queued_messages(self, *args: Any) -> Any:
                super()._send_queued_messages(*args)
                raise ValueError("ours")

        return Backend

    def test_error_after_a_delivery_leaves_it_delivered(self) -> None:
        self.serve()
        self.store(message("a"), message("b"))
        report = self.failing_drain(self.backend(self.raising()))
        self.assertEqual((report.sent, report.requeued, len(self.queue)), (2, 0, 0))
        self.assertEqual(self.smtp.copies, {"a": 1, "b": 1})

    def test_error_after_a_failure_counts_once(self) -> None:
        self.serve(in_turn(dot=[LATER]))
        self.store(message("a"))
        report = self.failing_drain(self.backend(self.raising()))
        self.assertEqual((report.requeued, len(self.queue), self.envelope().meta.attempts), (1, 1, 1))
        self.assertIn("later", self.envelope().meta.last_error)
        self.assertEqual(sum("attempt" in line for line in self.lines), 1)

    def test_error_after_a_part_was_delivered_keeps_the_rest(self) -> None:
        self.serve(by_recipient({TWO: LATER}))
        self.store(message("a", [ONE, TWO]))
        self.failing_drain(self.backend(self.raising()))
        self.assertEqual((self.envelope().meta.remaining, self.envelope().meta.attempts), ([TWO], 1))
        self.deliver()
        self.assertEqual(self.smtp.deliveries, {ONE: 1, TWO: 1})

    def test_error_after_a_discard_leaves_it_discarded(self) -> None:
        self.serve(in_turn(dot=[LATER]))
        self.store(message("a"))
        report = self.failing_drain(self.backend(self.raising()), expire=0)
        self.assertEqual((report.discarded, len(self.queue), len(self.discards())), (1, 0, 1))
