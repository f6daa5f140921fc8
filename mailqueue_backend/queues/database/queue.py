"""The queue in a database table, on the alias MAIL_QUEUE_DATABASE."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timezone
from functools import partial
from typing import Any

from django.db import connections
from django.db.models import Case, CharField, Count, Q, QuerySet, Value, When
from django.utils.dateparse import parse_datetime

from ...settings import conf
from ..base import Counts, Entry, MessageQueue, State
from . import sql
from .atomic import in_transaction
from .consumer import SELECTS, Consumer
from .models import DEFERRED, DUE, RESERVED, STATES, QueuedMessage
from .rows import WRITTEN_DUE, Row, compile_select, select, written_time
from .threads import allows_database_calls, closing_new_connection, run_in_thread
from .transactions import SENDERS_PATIENCE, refuse_transaction, translates_errors

#: How to store a message that is too large for MySQL.
_PACKET_ADVICE = "the server's max_allowed_packet; raise it, or send a link instead of a large attachment"


class Queue(MessageQueue):
    """A queue in the table of QueuedMessage.

    Each operation is a single statement, or a transaction that begins with a write.
    """

    @property
    def alias(self) -> str:
        """The alias of the database."""
        return conf.MAIL_QUEUE_DATABASE

    @property
    def parallel(self) -> bool:
        """False if other threads cannot see the queue: inside a transaction, and with an in-memory database."""
        connection = connections[self.alias]
        in_memory = getattr(connection, "is_in_memory_db", lambda: False)()
        return not (connection.in_atomic_block or in_memory)

    @property
    @translates_errors(SENDERS_PATIENCE)
    def largest_payload(self) -> int | None:
        """On MySQL, the server's max_allowed_packet."""
        connection = connections[self.alias]
        if connection.vendor != "mysql":
            return None
        with connection.cursor() as cursor:
            return sql.max_allowed_packet(cursor)

    @translates_errors(SENDERS_PATIENCE)
    def stored_size(self, payload: bytes) -> int:
        """On MySQL, return the size of the statement that stores the payload."""
        connection = connections[self.alias]
        return sql.statement_bytes(connection, payload) if connection.vendor == "mysql" else len(payload)

    def explain_size(self, payload: bytes) -> str:
        """Return why a payload is too large; query the server only if the payload is large enough to matter."""
        if len(payload) <= sql.BATCH_BYTES:
            return ""
        explain = partial(self._explain_size, payload)
        problem = explain() if allows_database_calls() else run_in_thread(self.alias, explain)
        return problem and f"{problem} ({_PACKET_ADVICE})"

    @translates_errors(SENDERS_PATIENCE)
    def _explain_size(self, payload: bytes) -> str:
        with closing_new_connection(self.alias):
            return super().explain_size(payload)

    # queue-front's interface

    def write_many(self, *payloads: bytes) -> list[bool]:
        """Store all payloads at the tail or none, as part of the caller's transaction if there is one.

        In a running event loop, another thread stores them, since Django allows no database calls there.
        """
        if allows_database_calls():
            self._insert(payloads)
        else:
            run_in_thread(self.alias, partial(self._insert, payloads))
        return [True] * len(payloads)

    @translates_errors(SENDERS_PATIENCE)
    def _insert(self, payloads: Sequence[bytes]) -> None:
        def insert() -> None:
            with connection.cursor() as cursor:
                for batch in batches:
                    params: list[Any] = []
                    for payload in batch:
                        params += (self.name, connection.Database.Binary(payload))
                    cursor.execute(sql.insert_due(alias, len(batch)), params)

        alias = self.alias
        connection: Any = connections[alias]
        batches = [payloads] if len(payloads) == 1 else [*sql.batches(payloads)]
        with closing_new_connection(alias):
            if len(batches) > 1 or connection.in_atomic_block:
                in_transaction(alias, insert)
            elif batches:
                insert()

    def read(self) -> bytes | None:
        """Delete a waiting row and return its payload, due ones first; return None if there is none."""
        for _ in range(SELECTS):
            row, deleted = self._delete_first_row()
            if row is None:
                break
            if deleted:
                return row.payload
        return None

    @translates_errors()
    def _delete_first_row(self) -> tuple[Row | None, bool]:
        """Delete the first waiting row; return the row, if any, and False if another consumer was faster."""

        def delete() -> tuple[Row | None, bool]:
            with connections[alias].cursor() as cursor:
                sql.take_write_lock(cursor)
                rows = select(cursor, compile_select(alias, self.name, "waiting", 1))
                if not rows:
                    return None, False
                cursor.execute(sql.delete_unclaimed(alias), [rows[0].deliveries, self.name, rows[0].pk])
                return rows[0], cursor.rowcount == 1

        alias = self.alias
        return in_transaction(alias, delete)

    # deliveries

    @translates_errors()
    def check_can_drain(self) -> None:
        """Raise ConfigurationError in a transaction: if it is rolled back, all that was delivered is sent again."""
        refuse_transaction(self.alias)

    @translates_errors()
    def counts(self) -> Counts:
        """Count the messages by state, in one query."""
        own, dead = Q(queue=self.name), Q(queue=self.dead_name)
        found = (
            QueuedMessage.objects.using(self.alias)
            .filter(own | dead)
            .aggregate(
                due_now=Count("pk", filter=own & DUE),
                deferred=Count("pk", filter=own & DEFERRED),
                reserved=Count("pk", filter=own & RESERVED),
                dead=Count("pk", filter=dead),
            )
        )
        due = found.pop("due_now")
        return Counts(waiting=due + found["deferred"], due=due, **found)

    def consumer(self, lease: float) -> Consumer:
        """Open a consumer; it uses the database connection of the calling thread."""
        return Consumer(self, lease, self.alias)

    @translates_errors()
    def browse(self, state: State, limit: int, after: Entry | None = None) -> list[Entry]:
        """List up to ``limit`` rows in a state after the entry ``after``, ordered by (due, id)."""
        alias = self.alias
        rows = QueuedMessage.objects.using(alias).filter(
            STATES[state], queue=self.dead_name if state == "dead" else self.name
        )
        if after:
            due, pk = after.key
            written = written_time(alias, due)
            rows = rows.filter(Q(due__gt=written) | Q(pk__gt=pk), due__gte=written)
        return [_entry(state, *values) for values in _values(rows)[:limit]]

    @translates_errors()
    def refresh(self, entry: Entry) -> Entry | None:
        """Find the row by its id, which it has until it is released."""
        rows = QueuedMessage.objects.using(self.alias).filter(queue__in=[self.name, self.dead_name], pk=entry.key[1])
        for state, *values in _values(rows, self._state()):
            return _entry(state, *values)
        return None

    def _state(self) -> Case:
        """Return the expression for the state of a row."""
        dead = When(queue=self.dead_name, then=Value("dead"))
        live = [When(condition, then=Value(state)) for state, condition in STATES.items() if state != "dead"]
        return Case(dead, *live, output_field=CharField())

    @translates_errors()
    def warnings(self) -> list[str]:
        """Warn of an SQLite file that is not in WAL mode."""
        connection: Any = connections[self.alias]
        if connection.vendor != "sqlite" or connection.is_in_memory_db():
            return []
        with connection.cursor() as cursor:
            cursor.execute("PRAGMA journal_mode")
            (mode,) = cursor.fetchone()
        return [] if mode == "wal" else [_without_wal(self.alias, mode)]


def _without_wal(alias: str, mode: str) -> str:
    return (
        f"SQLite on {alias!r} is in journal mode {mode}: readers and writers wait for each other. "
        f'Run once: sqlite3 {connections[alias].settings_dict["NAME"]} "PRAGMA journal_mode=WAL".'
    )


def _values(rows: QuerySet[QueuedMessage], *columns: Case) -> Any:
    return rows.annotate(written_due=WRITTEN_DUE).values_list(*columns, "pk", "written_due", "payload", "deliveries")


def _entry(state: State, pk: int, due: str, payload: Any, deliveries: int) -> Entry:
    return Entry((due, pk), bytes(payload), state, _epoch(due), deliveries)


def _epoch(due: Any) -> float:
    """Convert the database's text for a time to seconds since 1970; without a time zone, it is in UTC."""
    time = parse_datetime(due)
    assert time is not None, due
    return (time if time.tzinfo else time.replace(tzinfo=timezone.utc)).timestamp()
