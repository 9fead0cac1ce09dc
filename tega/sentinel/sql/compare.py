"""What a listing and the tables differ in, worked out without the sentinel's own tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tega.sentinel.columns import Misfit
from tega.sentinel.mapping import Row
from tega.sentinel.sink import Event, FullPass
from tega.sentinel.source import Entry
from tega.sentinel.sql.database import Database
from tega.sentinel.sql.schema import Target


class _Wanted(NamedTuple):
    revision: int
    key: bytes
    row: Row


class Comparison(FullPass):
    """A comparison. It holds all rows that there should be in memory."""

    def __init__(self, database: Database, prefixes: Sequence[bytes]) -> None:
        self._database = database
        self._scopes = [scope for scope in database.mapping.scopes if scope.prefix in prefixes]
        self._wanted: dict[str, _Wanted] = {}
        self._rejects: list[Event] = []
        self._rejected: set[tuple[bytes, int]] | None = None

    async def take(self, piece: Sequence[Entry]) -> None:
        if self._rejected is None:
            self._rejected = await self._database.run(self._read_rejected)
        for entry in piece:
            if (entry.key, entry.revision) in self._rejected:
                continue
            scope = self._database.mapping.scope_of(entry.key)
            assert scope is not None
            assert entry.value is not None
            try:
                row = self._database.mapping.row(scope, entry.key, entry.value)
            except Misfit as misfit:
                self._rejects.append(
                    Event("reject", "", {}, entry.key, entry.revision, reason=str(misfit))
                )
            else:
                new = _Wanted(entry.revision, entry.key, row)
                old = self._wanted.get(row.id, new)
                self._wanted[row.id] = max(old, new, key=lambda wanted: wanted[:2])

    async def finish(self) -> list[Event]:
        return await self._database.run(self._finish)

    async def commit(self) -> list[Event]:
        return []

    async def close(self) -> None:
        self._wanted.clear()

    def _finish(self) -> list[Event]:
        events: list[Event] = []
        with self._database.connect() as connection:
            there = Database.has(connection)
            for table in dict.fromkeys([t for scope in self._scopes for t in scope.tables]):
                target = self._database.targets[table.title]
                if there(target.sql):
                    events += self._differences(connection, target)
        events += [
            Event("insert", one.row.table.title, one.row.table.key_of(one.row.values),
                  one.key, one.revision)
            for one in self._wanted.values()
        ]  # fmt: skip
        return [*events, *self._rejects]

    def _read_rejected(self) -> set[tuple[bytes, int]]:
        """The keys that are known not to fit, among them those that the database has refused."""
        with self._database.connect() as connection:
            if not Database.has(connection)(self._database.own.rejects):
                return set()
            return set(self._database.keys.rejected(connection))

    def _differences(self, connection: Connection, target: Target) -> Iterator[Event]:
        table = target.table
        names = [column.name for column in table.columns]
        result = connection.execution_options(yield_per=1000).execute(sa.select(*target.columns))
        for row in result:
            values = tuple(row)[: len(names)]
            marked = any(tuple(row)[len(names) :])
            wanted = self._wanted.get(table.id_of(values))
            if wanted is None:
                if not marked:
                    yield Event("delete", table.title, table.key_of(values), b"", 0)
            elif not marked:
                del self._wanted[table.id_of(values)]
                changed = {
                    name: (old, new)
                    for name, old, new in zip(names, values, wanted.row.values, strict=True)
                    if old != new
                }
                if changed:
                    yield Event(
                        "update", table.title, table.key_of(values), wanted.key,
                        wanted.revision, changed,
                    )  # fmt: skip

