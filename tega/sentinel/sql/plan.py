"""What some changes of keys do to rows: read from the database, worked out in memory.

Several keys may give the same row. The one with the newest revision does; of two that are equally
new, the one that sorts last. So for every row that a change may touch all its keys are looked at,
before and after.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from tega.sentinel import mapping as mappings
from tega.sentinel.columns import Misfit
from tega.sentinel.mapping import Row, Table, digest
from tega.sentinel.sink import Event
from tega.sentinel.source import Batch, Entry
from tega.sentinel.sql.schema import Own, Target

T = TypeVar("T")

#: Most values of one IN.
CHUNK: Final = 500


class Held(NamedTuple):
    """A key that gives a row, as ``tega_sentinel_keys`` has it."""

    id: str
    scope: str
    key: bytes
    revision: int
    value: bytes
    table: str
    row: str


class Reject(NamedTuple):
    """A key that does not fit, as ``tega_sentinel_rejects`` has it."""

    id: str
    scope: str
    key: bytes
    revision: int
    value: bytes
    reason: str


class Write(NamedTuple):
    """A row to be written.

    :ivar after: the values; None: it is to be removed
    :ivar values: those that tell the primary key: the new ones, or else the old
    :ivar cause: the key that gives the row, or that went, and its revision
    """

    table: Table
    row: str
    after: tuple[Any, ...] | None
    values: tuple[Any, ...]
    cause: tuple[bytes, int]
    event: Event


#: What the database has refused: key and revision to its reason. These are rejected.
Refused = dict[tuple[bytes, int], str]


class Keys:
    """Reads what is known of keys.

    :param name: the name of the checkpoint
    """

    def __init__(self, own: Own, name: str) -> None:
        self._own = own
        self._name = name

    def held(self, connection: Connection, ids: Iterable[str]) -> dict[str, Held]:
        """The keys that give rows, by id."""
        keys = self._own.keys
        return {
            held.id: held for held in self._read(connection, keys, keys.c.id, ids, _held)
        }

    def of_rows(self, connection: Connection, rows: Iterable[str]) -> dict[str, dict[str, Held]]:
        """All keys of some rows, by row and id."""
        found: dict[str, dict[str, Held]] = {}
        keys = self._own.keys
        for held in self._read(connection, keys, keys.c.row_id, rows, _held):
            found.setdefault(held.row, {})[held.id] = held
        return found

    def rejects(self, connection: Connection, ids: Iterable[str]) -> dict[str, Reject]:
        """The keys that do not fit, by id."""
        rejects = self._own.rejects
        found = self._read(connection, rejects, rejects.c.id, ids, _reject)
        return {reject.id: reject for reject in found}

    def known(
        self, connection: Connection, ids: Sequence[str], without_rejects: bool
    ) -> dict[str, tuple[int, str]]:
        """The revisions of keys, and the digests of their values, by id."""
        found: dict[str, tuple[int, str]] = {}
        for table in (self._own.keys, self._own.rejects)[: 1 if without_rejects else 2]:
            for some in chunks(ids):
                query = sa.select(table.c.id, table.c.revision, table.c.digest).where(
                    table.c.name == self._name, table.c.id.in_(some)
                )
                for row in connection.execute(query):
                    found[row.id] = (row.revision, row.digest)
        return found

    def rejected(self, connection: Connection) -> Iterator[tuple[bytes, int]]:
        """The keys that do not fit, with their revisions."""
        rejects = self._own.rejects
        query = sa.select(rejects.c.source_key, rejects.c.revision)
        for row in connection.execute(query.where(rejects.c.name == self._name)):
            yield bytes(row.source_key), row.revision

    def rows(self, connection: Connection, table: str) -> Iterator[list[str]]:
        """The ids of all rows that keys give of a table, in pieces."""
        keys = self._own.keys
        after = ""
        while True:
            query = (
                sa.select(keys.c.row_id)
                .where(keys.c.name == self._name, keys.c.row_id > after)
                .where(keys.c.row_table == table)
                .group_by(keys.c.row_id)
                .order_by(keys.c.row_id)
                .limit(CHUNK)
            )
            found = list(connection.scalars(query))
            if found:
                yield found
            if len(found) < CHUNK:
                return
            after = found[-1]

    def all(
        self, connection: Connection, scopes: Collection[str] | None = None
    ) -> Iterator[list[tuple[str, bytes, int, bytes]]]:
        """All keys of both kinds: id, key, revision and value, in pieces.

        :param scopes: only those of these scopes
        """
        for table in (self._own.keys, self._own.rejects):
            after = ""
            while True:
                query = (
                    sa.select(table.c.id, table.c.source_key, table.c.revision, table.c.value)
                    .where(table.c.name == self._name, table.c.id > after)
                    .order_by(table.c.id)
                    .limit(CHUNK)
                )
                if scopes is not None:
                    query = query.where(table.c.scope.in_(scopes))
                rows = [tuple(row) for row in connection.execute(query)]
                if rows:
                    yield [(id, bytes(key), revision, bytes(v)) for id, key, revision, v in rows]
                if len(rows) < CHUNK:
                    break
                after = rows[-1][0]

    def _read(
        self,
        connection: Connection,
        table: sa.Table,
        column: sa.Column[str],
        wanted: Iterable[str],
        make: Callable[[Any], T],
    ) -> Iterator[T]:
        for some in chunks(list(wanted)):
            query = sa.select(table).where(table.c.name == self._name, column.in_(some))
            yield from map(make, connection.execute(query))


def _held(row: Any) -> Held:
    return Held(
        row.id, row.scope, bytes(row.source_key), row.revision, bytes(row.value),
        row.row_table, row.row_id,
    )  # fmt: skip


def _reject(row: Any) -> Reject:
    return Reject(
        row.id, row.scope, bytes(row.source_key), row.revision, bytes(row.value), row.reason
    )


def chunks(items: Sequence[T], size: int = CHUNK) -> Iterator[Sequence[T]]:
    """Some items at a time."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def winner(holders: Mapping[str, Held] | None) -> Held | None:
    """The key that gives a row, of all that could."""
    if not holders:
        return None
    return max(holders.values(), key=lambda held: (held.revision, held.key))


class Plan:
    """What is to be written.

    :param refused: is rejected without being tried
    :ivar held: keys that now give a row by id; None: no more
    :ivar rejects: keys that now do not fit by id; None: no more
    :ivar writes: rows, in order
    :ivar events: what that is to people, in order
    """

    def __init__(
        self,
        mapping: mappings.Mapping,
        targets: Mapping[str, Target],
        keys: Keys,
        refused: Refused,
    ) -> None:
        self._mapping = mapping
        self._targets = targets
        self._keys = keys
        self._refused = refused
        self._rows: dict[tuple[str, int], Row] = {}
        self.held: dict[str, Held | None] = {}
        self.rejects: dict[str, Reject | None] = {}
        self.writes: list[Write] = []
        self.events: list[Event] = []

    def work_out(self, connection: Connection, batches: Sequence[Batch]) -> None:
        """Work out what some batches do, one after the other."""
        entries = [entry for batch in batches for entry in batch.entries]
        read = [self._read(entry) for entry in entries]
        ids = {one.id for one in read if one is not None}
        held = self._keys.held(connection, ids)
        rejects = self._keys.rejects(connection, ids)
        rows = {one.row for one in [*read, *held.values()] if isinstance(one, Held)}
        holders = self._keys.of_rows(connection, rows)
        those = iter(read)
        for batch in batches:
            before: dict[str, tuple[Held | None, Entry]] = {}
            for entry in batch.entries:
                new = next(those)
                if new is not None:
                    self._enter(entry, new, held, rejects, holders, before)
            self._compare(before, holders)

    def _read(self, entry: Entry) -> Held | Reject | None:
        """What a key now is; a deleted one is a reject without a reason."""
        id = digest(entry.key)
        if entry.value is None:
            return Reject(id, "", entry.key, entry.revision, b"", "")
        scope = self._mapping.scope_of(entry.key)
        if scope is None:
            return None
        reason = self._refused.get((entry.key, entry.revision))
        if reason is None:
            try:
                row = self._mapping.row(scope, entry.key, entry.value)
                self._targets[row.table.title].check(row.values)
            except Misfit as misfit:
                reason = str(misfit)
            else:
                self._rows[id, entry.revision] = row
                return Held(
                    id, scope.id, entry.key, entry.revision, entry.value, row.table.title, row.id
                )
        return Reject(id, scope.id, entry.key, entry.revision, entry.value, reason)

    def _enter(
        self,
        entry: Entry,
        new: Held | Reject,
        held: dict[str, Held],
        rejects: dict[str, Reject],
        holders: dict[str, dict[str, Held]],
        before: dict[str, tuple[Held | None, Entry]],
    ) -> None:
        """Let one key be what it now is; remember which key gave its rows before."""
        if new in (held.get(new.id), rejects.get(new.id)):
            return
        old = held.pop(new.id, None)
        if old is not None:
            before.setdefault(old.row, (winner(holders[old.row]), entry))
            del holders[old.row][old.id]
            self.held[old.id] = None
        if isinstance(new, Held):
            here = holders.setdefault(new.row, {})
            before.setdefault(new.row, (winner(here), entry))
            here[new.id] = self.held[new.id] = held[new.id] = new
        rejected = rejects.pop(new.id, None)
        if rejected is not None:
            self.rejects[new.id] = None
        if isinstance(new, Reject) and entry.value is not None:
            self.rejects[new.id] = rejects[new.id] = new
            if rejected is None or rejected[2:] != new[2:]:
                self.events.append(
                    Event("reject", "", {}, new.key, new.revision, reason=new.reason)
                )

    def _compare(
        self,
        before: dict[str, tuple[Held | None, Entry]],
        holders: dict[str, dict[str, Held]],
    ) -> None:
        """Find what the touched rows were and now are."""
        removed = []
        made = []
        for id, (old, entry) in before.items():
            new = winner(holders.get(id))
            if old == new:
                continue
            was = None if old is None else self.row(old)
            now = None if new is None else self.row(new)
            if now is None and was is not None:
                removed.append(self.write(was.table, id, was.values, None, entry))
            elif new is not None and now is not None and (was is None or was.values != now.values):
                values = None if was is None else was.values
                made.append(self.write(now.table, id, values, now.values, new))
        order = {table.title: place for place, table in enumerate(self._mapping.tables)}
        # What others may refer to comes first, and goes last.
        made.sort(key=lambda write: order[write.table.title])
        removed.sort(key=lambda write: -order[write.table.title])
        for write in made + removed:
            self.writes.append(write)
            self.events.append(write.event)

    def row(self, held: Held) -> Row | None:
        """The row that a key gives; None: it gave one under another mapping."""
        at = (held.id, held.revision)
        if at not in self._rows:
            scope = self._mapping.scope_of(held.key)
            try:
                if scope is None:
                    return None
                row = self._mapping.row(scope, held.key, held.value)
            except Misfit:
                return None
            if row.id != held.row:
                return None
            self._rows[at] = row
        return self._rows[at]

    def write(
        self,
        table: Table,
        id: str,
        before: tuple[Any, ...] | None,
        after: tuple[Any, ...] | None,
        cause: Entry | Held,
        drift: bool = False,
    ) -> Write:
        """What is to be written of a row, and what that is to people."""
        values = after if after is not None else before
        assert values is not None
        event = event_of(table, before, after, (cause.key, cause.revision), drift)
        return Write(table, id, after, values, (cause.key, cause.revision), event)

def event_of(
    table: Table,
    before: tuple[Any, ...] | None,
    after: tuple[Any, ...] | None,
    cause: tuple[bytes, int],
    drift: bool,
) -> Event:
    """What it is to people that a row was so and is so now."""
    values = after if after is not None else before
    assert values is not None
    changed = None
    if before is not None and after is not None:
        names = [column.name for column in table.columns]
        changed = {
            name: (old, new)
            for name, old, new in zip(names, before, after, strict=True)
            if old != new
        }
    kind = "insert" if before is None else "delete" if after is None else "update"
    return Event(kind, table.title, table.key_of(values), *cause, changed, drift=drift)
