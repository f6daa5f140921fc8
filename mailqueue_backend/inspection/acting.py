"""Act on queued messages: retry, discard, revive.

Each message is first taken and then settled, as a drain does it. So neither a drain nor another operator can act on it
at the same time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from itertools import islice

from ..discards import Discard as DiscardLine
from ..discards import log_discard
from ..envelope import loads, sign
from ..envelope.signature import keys
from ..errors import Unreadable
from ..queues.base import Consumer, Entry, How, MessageQueue, Settlement, State
from ..settings import conf
from .announcing import announce_discard, announce_revival
from .listing import PAGE
from .messages import Message, open_entry

#: Why a message is skipped.
IS_RESERVED = "it is being delivered"
IS_GONE = "it is being delivered, or has left the queue"


class Action:
    """What to do with a message."""

    #: The states of the messages that act_on_all() acts on.
    states: tuple[State, ...] = ()

    def is_done(self, message: Message) -> bool:
        """Return whether nothing is left to do, neither for this message nor for those behind it in its state."""
        return False

    def objection(self, message: Message) -> str:
        """Return why this cannot be done with the message; "" if it can."""
        return IS_RESERVED if message.entry.state == "reserved" else ""

    def carry_out(self, message: Message) -> How:
        """Do what precedes the settlement of the message, which is reserved, and return how to settle it."""
        raise NotImplementedError(f"{type(self).__qualname__} must define carry_out()")


class Retry(Action):
    """Make a message due now, whatever its delay, at the tail of the queue. On Redis, 0.1.2 then finds it."""

    states = ("due", "deferred")

    def is_done(self, message: Message) -> bool:
        """Return whether the message is due, and not delayed."""
        return message.entry.state == "due" and not message.queue.is_delayed(message.entry)

    def objection(self, message: Message) -> str:
        """Object to messages that are reserved or dead."""
        return "it is dead: revive it" if message.entry.state == "dead" else super().objection(message)

    def carry_out(self, message: Message) -> How:
        """Release it."""
        return "release"


class Discard(Action):
    """Delete a message. A kill after its line in the discard log, and before the deletion, keeps it queued."""

    states = ("due", "deferred", "dead")

    def carry_out(self, message: Message) -> How:
        """Write the line. Raises DiscardLogError, and the message stays queued."""
        error = f"discarded by an operator; last error: {message.last_error or 'none'}"
        created = message.envelope.created if message.envelope else "unknown"
        line = ("Message Discarded", created, message.subject, message.sender, message.recipients)
        log_discard(DiscardLine(*line, error, message.id, message.message_id))
        announce_discard(message, "discarded by an operator")
        return "ack"


class Revive(Action):
    """Move a dead message back to the tail of its queue, with its Meta, and without its count of deliveries.

    It is written to the queue before it leaves the dead queue: a kill in between doubles it, and never loses it.
    ``trust``: sign a payload that is unsigned, or signed with a lost key. Opening it then imports and calls whatever
    its pickle names.
    """

    states = ("dead",)

    def __init__(self, trust: bool = False) -> None:
        self.trust = trust

    def objection(self, message: Message) -> str:
        """Object to messages that are not dead, and to those that a drain could not open."""
        if message.entry.state != "dead":
            return "it is not dead"
        if not message.problem:
            return ""
        if not self.trust:
            return f"it cannot be opened ({message.problem}); if your own site wrote it, add --trust"
        try:
            loads(sign(message.entry.payload))
        except Unreadable as error:
            return f"it cannot be opened: {error}"
        return ""

    def carry_out(self, message: Message) -> How:
        """Write it to the queue."""
        payload = message.entry.payload
        message.queue.write(sign(payload) if message.problem else payload)
        announce_revival(message, "revived by an operator")
        return "ack"


class Operator:
    """Carries out actions on the messages of one queue; a context manager. Not thread-safe."""

    def __init__(self, queue: MessageQueue) -> None:
        self._queue = queue
        self._stack = ExitStack()
        self._consumers: dict[str, Consumer] = {}

    def __enter__(self) -> Operator:
        return self

    def __exit__(self, *args: object) -> None:
        self._stack.close()

    def apply(self, action: Action, message: Message) -> str:
        """Take the message, carry out the action and settle; return why it was skipped, or "".

        Raises QueueUnavailable or DiscardLogError. The message is then put back.
        """
        if action.is_done(message):
            return ""
        if objection := action.objection(message):
            return objection
        consumer = self._consumer_of(message.entry)
        reservation = consumer.take(message.entry)
        if reservation is None:
            return IS_GONE
        (settled,) = consumer.exchange([Settlement(reservation, action.carry_out(message))]).settled
        return "" if settled else f"its lease of {conf.MAIL_QUEUE_LEASE} s ended before this was done"

    def _consumer_of(self, entry: Entry) -> Consumer:
        """Return the consumer of the queue, or of its dead queue, opened at first use."""
        name = self._queue.dead_name if entry.state == "dead" else self._queue.name
        if name not in self._consumers:
            queue = self._queue if name == self._queue.name else self._queue.sibling(name)
            self._consumers[name] = self._stack.enter_context(queue.consumer(conf.MAIL_QUEUE_LEASE))
        return self._consumers[name]


def act(action: Action, messages: Iterable[Message]) -> Iterator[tuple[Message, str]]:
    """Carry out the action on each message; yield it, and why it was skipped, or ""."""
    with ExitStack() as stack:
        operators: dict[int, Operator] = {}
        for message in messages:
            key = id(message.queue)
            if key not in operators:
                operators[key] = stack.enter_context(Operator(message.queue))
            yield message, operators[key].apply(action, message)


def act_on_all(action: Action, queue: MessageQueue) -> Iterator[tuple[Message, str]]:
    """Carry out the action on as many messages as there are now; yield each, and why it was skipped, or ""."""
    counts = queue.counts()
    with Operator(queue) as operator:
        for state in action.states:
            yield from islice(_act_on_state(operator, action, queue, state), getattr(counts, state))


def _act_on_state(
    operator: Operator, action: Action, queue: MessageQueue, state: State
) -> Iterator[tuple[Message, str]]:
    accepted = keys()
    after: Entry | None = None
    while page := queue.browse(state, PAGE, after):
        for entry in page:
            message = open_entry(queue, entry, accepted)
            if action.is_done(message):
                return
            skipped = operator.apply(action, message)
            if skipped:
                after = entry  # not one that has gone: behind it, a Redis list would be browsed from its head
            yield message, skipped
