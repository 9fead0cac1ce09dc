"""A full pass: keys beside the listing, then rows beside keys, all in one transaction.

The listing comes piece by piece. Of each piece only what is new to the database is worked out. What
was not listed is gone. Then every row is compared with the key that gives it: what differs there,
somebody else has changed. Nothing is written, and nothing locked, before something differs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from tega.sentinel.mapping import digest
from tega.sentinel.sink import Again, Event, FullPass, SinkError
from tega.sentinel.source import Batch, Entry, Position
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql.database import Database
from tega.sentinel.sql.plan import Plan, Write, chunks, event_of, winner
from tega.sentinel.sql.schema import Target
from tega.sentinel.sql.writing import Refusal, Writer

#: Rows of a table that are read at a time.
_ROWS: Final = 1000


class SqlPass(FullPass):
    """A pass.

    :param prefixes: of the scopes that it goes over
    """

    def __init__(self, database: Database, prefixes: Sequence[bytes], position: Position) -> None:
        self._database = database
        self._position = position
        self._scopes = [scope for scope in database.mapping.scopes if scope.prefix in prefixes]
        self._seen: set[str] = set()
        self._events: list[Event] = []
        self._connection: Connection | None = None
        self._moved = False
        self._writer = Writer(database.own, database.targets, database.name, database.careful)

    async def take(self, piece: Sequence[Entry]) -> None:
        await self._run(lambda: self._take(piece))

    async def finish(self) -> list[Event]:
        await self._run(self._finish)
        self._events = self._writer.events(self._events)
        return [event for event in self._events if event.drift]

    async def commit(self) -> list[Event]:
        await self._run(self._commit)
        self._database.passed(self._position)
        return [event for event in self._events if not event.drift]

    async def close(self) -> None:
        await self._database.run(self._close)

    async def _run(self, work: Callable[[], None]) -> None:
        def run() -> None:
            try:
                work()
            except Refusal as refusal:
                if refusal.refused.keys() <= self._database.refused.keys():
                    raise SinkError(next(iter(refusal.refused.values()))) from None
                self._database.refused |= refusal.refused
                raise Again from None
            except exc.SQLAlchemyError as error:
                if self._database.careful or not dialects.is_about_data(error):
                    raise
                self._database.careful = True
                raise Again from None

        await self._database.run(run)

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _opened(self) -> Connection:
        if self._connection is None:
            self._connection = self._database.connect()
        return self._connection

    def _plan(self) -> Plan:
        database = self._database
        return Plan(database.mapping, database.targets, database.keys, database.refused)

    def _take(self, piece: Sequence[Entry]) -> None:
        ids = [digest(entry.key) for entry in piece]
        self._seen.update(ids)
        # What another mapping has made of a key says nothing.
        known = {}
        if self._database.position is not None:
            known = self._database.keys.known(self._opened(), ids, self._database.retries)
        refused = self._database.refused
        self._work_out([
            entry
            for id, entry in zip(ids, piece, strict=True)
            if known.get(id) != (entry.revision, digest(entry.value or b""))
            or (entry.key, entry.revision) in refused
        ])

    def _work_out(self, entries: Sequence[Entry]) -> None:
        if not entries:
            return
        plan = self._plan()
        plan.work_out(self._opened(), [Batch(self._position.revision, tuple(entries))])
        plan.writes, plan.events = self._differing(plan)
        self._move()
        self._writer.write(self._opened(), plan)
        self._events += plan.events

    def _differing(self, plan: Plan) -> tuple[list[Write], list[Event]]:
        """The writes and events of a plan, beside what the tables hold.

        Rows that are there as they should be are left out; one that is there otherwise is no new
        row, whoever made it.
        """
        there: dict[str, tuple[Any, ...]] = {}
        for title, target in self._database.targets.items():
            keys = [write.table.key_of(write.values) for write in plan.writes
                    if write.table.title == title and write.after is not None]
            there |= dict(self._find(target, keys))
        writes: list[Write] = []
        told: dict[int, Event | None] = {}
        for write in plan.writes:
            held = there.get(write.row)
            if write.after is None or held is None:
                writes.append(write)
            elif held == _whole(write):
                told[id(write.event)] = None
            else:
                size = len(write.after)
                before = None if any(held[size:]) else held[:size]
                again = event_of(write.table, before, write.after, write.cause, False)
                told[id(write.event)] = again
                writes.append(write._replace(event=again))
        events = [told.get(id(event), event) for event in plan.events]
        return writes, [event for event in events if event is not None]

    def _find(
        self, target: Target, keys: list[dict[str, Any]]
    ) -> Iterator[tuple[str, tuple[Any, ...]]]:
        """The rows with these primary keys that are in a table, with their ids."""
        for some in chunks(keys):
            if len(target.key) == 1:
                (column,) = target.key
                condition: Any = column.in_([key[column.name] for key in some])
            else:
                condition = sa.or_(*[
                    sa.and_(*[target.sql.c[name] == value for name, value in key.items()])
                    for key in some
                ])
            for row in self._opened().execute(sa.select(*target.columns).where(condition)):
                yield target.table.id_of(row), tuple(row)

    def _finish(self) -> None:
        scopes = None
        if self._database.position is not None:
            scopes = [scope.id for scope in self._scopes]
        for piece in self._database.keys.all(self._opened(), scopes):
            self._work_out([
                Entry(key, None, self._position.revision)
                for id, key, _, _ in piece
                if id not in self._seen
            ])
        for table in dict.fromkeys([table for scope in self._scopes for table in scope.tables]):
            self._mend(self._database.targets[table.title])
        if self._position != self._database.position:
            self._move()

    def _commit(self) -> None:
        self._opened().commit()
        self._close()

    def _mend(self, target: Target) -> None:
        """Make the rows of a table what their keys say."""
        rows: set[str] = set()
        for piece in self._rows(target):
            found = {target.table.id_of(row): tuple(row) for row in piece}
            rows |= found.keys()
            self._compare(target, found)
        for ids in self._database.keys.rows(self._opened(), target.table.title):
            missing = [id for id in ids if id not in rows]
            if missing:
                self._compare(target, dict.fromkeys(missing))

    def _compare(self, target: Target, found: Mapping[str, tuple[Any, ...] | None]) -> None:
        """Compare rows with the keys that give them, and write those that differ."""
        plan = self._plan()
        holders = self._database.keys.of_rows(self._opened(), found)
        size = len(target.table.columns)
        for id, there in found.items():
            held = winner(holders.get(id))
            row = None if held is None else plan.row(held)
            before = None if there is None or any(there[size:]) else there[:size]
            if held is not None and row is not None:
                if before != row.values:
                    self._mended(plan.write(row.table, id, before, row.values, held))
            elif before is not None:
                # No key of the source: the one that it would come of is not known.
                nobody = Entry(b"", None, self._position.revision)
                self._mended(plan.write(target.table, id, before, None, nobody))

    def _mended(self, write: Write) -> None:
        if self._database.position is not None:
            write = write._replace(event=write.event._replace(drift=True))
        self._move()
        self._writer.rows(self._opened(), [write])
        self._events.append(write.event)

    def _rows(self, target: Target) -> Iterator[Sequence[Any]]:
        """The rows of a table, in pieces."""
        after: Any = None
        while True:
            query = sa.select(*target.columns).order_by(*target.key).limit(_ROWS)
            if after is not None:
                query = query.where(_beyond(target.key, after))
            rows = self._opened().execute(query).all()
            if rows:
                yield rows
            if len(rows) < _ROWS:
                return
            after = target.table.key_of(rows[-1])

    def _move(self) -> None:
        """Take the checkpoint, before the first write."""
        if not self._moved:
            self._database.move(self._opened(), self._position)
            self._moved = True


def _whole(write: Write) -> tuple[Any, ...]:
    """The row as it stands in the table, the mark included."""
    assert write.after is not None
    return write.after if write.table.mark is None else (*write.after, False)


def _beyond(key: Sequence[sa.Column[Any]], last: Mapping[str, Any]) -> Any:
    """The condition that a row comes after one with this key."""
    conditions = []
    for place, column in enumerate(key):
        same = [before == last[before.name] for before in key[:place]]
        conditions.append(sa.and_(*same, column > last[column.name]))
    return sa.or_(*conditions)
