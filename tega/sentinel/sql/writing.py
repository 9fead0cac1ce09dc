"""Writing a plan: many rows with a statement, or, where the database refuses one, one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from typing import Any

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import Connection

from tega.sentinel.mapping import digest
from tega.sentinel.sink import Event
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql.plan import Held, Plan, Refused, Reject, Write, chunks
from tega.sentinel.sql.schema import Own, Target


class Refusal(Exception):
    """The database has refused some rows, each for its reason."""

    def __init__(self, refused: Refused) -> None:
        super().__init__(f"{len(refused)} rows refused")
        self.refused = refused


def now() -> datetime:
    """The time, as columns hold it."""
    return datetime.now(timezone.utc).replace(tzinfo=None, microsecond=0)


class Writer:
    """Writes plans.

    :param name: the name of the checkpoint
    :param careful: write rows one by one, so that it shows which one is refused
    :ivar left: removals that the database has refused: those rows are left where they are
    """

    def __init__(
        self, own: Own, targets: Mapping[str, Target], name: str, careful: bool
    ) -> None:
        self._own = own
        self._targets = targets
        self._name = name
        self._careful = careful
        self.left: list[tuple[Event, str]] = []

    def write(self, connection: Connection, plan: Plan) -> None:
        """Write everything of a plan.

        :raises Refusal: when careful, naming the keys to be rejected
        """
        self.rows(connection, plan.writes)
        self._keys(connection, plan.held)
        self._rejects(connection, plan.rejects)

    def events(self, events: list[Event]) -> list[Event]:
        """What was done, of what was to be done."""
        left = {id(event): reason for event, reason in self.left}
        return [
            event._replace(kind="error", reason=f"cannot be deleted: {left[id(event)]}")
            if id(event) in left else event
            for event in events
        ]  # fmt: skip

    def rows(self, connection: Connection, writes: Sequence[Write]) -> None:
        """Write rows only."""
        if self._careful:
            self._one_by_one(connection, writes)
            return
        for some in _rounds(writes):
            self._together(connection, some)

    def _together(self, connection: Connection, writes: Sequence[Write]) -> None:
        """Write rows of which none stands there twice, so that their order is as good as any."""
        for title, target in self._targets.items():
            rows = [_filled(target, w.after) for w in writes
                    if w.table.title == title and w.after is not None]
            dialects.write(
                connection, target.sql, target.table.primary_key, rows, target.contested
            )
        for title, target in reversed(list(self._targets.items())):
            gone = [w.table.key_of(w.values) for w in writes
                    if w.table.title == title and w.after is None]
            if gone:
                _remove(connection, target, gone)

    def _one_by_one(self, connection: Connection, writes: Sequence[Write]) -> None:
        refused: Refused = {}
        for write in writes:
            savepoint = connection.begin_nested()
            try:
                self._together(connection, [write])
                savepoint.commit()
            except exc.SQLAlchemyError as error:
                if not dialects.is_about_data(error):
                    raise
                savepoint.rollback()
                reason = dialects.reason(getattr(error, "orig", None) or error)
                if write.after is None:
                    self.left.append((write.event, reason))
                else:
                    refused.setdefault(write.cause, f"the database refuses it: {reason}")
        if refused:
            raise Refusal(refused)

    def _keys(self, connection: Connection, changed: Mapping[str, Held | None]) -> None:
        rows = [
            {
                "name": self._name, "id": held.id, "scope": held.scope, "source_key": held.key,
                "revision": held.revision, "value": held.value,
                "digest": digest(held.value), "row_table": held.table,
                "row_id": held.row,
            }
            for held in changed.values()
            if held is not None
        ]  # fmt: skip
        self._set(connection, self._own.keys, rows, [i for i, h in changed.items() if h is None])

    def _rejects(self, connection: Connection, changed: Mapping[str, Reject | None]) -> None:
        rows = [
            {
                "name": self._name, "id": reject.id, "scope": reject.scope,
                "source_key": reject.key, "revision": reject.revision, "value": reject.value,
                "digest": digest(reject.value), "reason": reject.reason, "at": now(),
            }
            for reject in changed.values()
            if reject is not None
        ]  # fmt: skip
        self._set(connection, self._own.rejects, rows, [i for i, r in changed.items() if r is None])

    def _set(
        self, connection: Connection, table: sa.Table, rows: list[dict[str, Any]], gone: list[str]
    ) -> None:
        dialects.write(connection, table, ("name", "id"), rows)
        for some in chunks(gone):
            connection.execute(
                sa.delete(table).where(table.c.name == self._name, table.c.id.in_(some))
            )


def _rounds(writes: Sequence[Write]) -> list[list[Write]]:
    """The writes in rounds in which no row stands twice, those of each row in order."""
    rounds: list[list[Write]] = []
    last: dict[str, int] = {}
    for write in writes:
        number = last[write.row] = last.get(write.row, -1) + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(write)
    return rounds


def _filled(target: Target, values: tuple[Any, ...]) -> dict[str, Any]:
    """The columns of a row that is there."""
    marked = [False] * len(target.marks)
    return {
        column.name: value
        for column, value in zip(target.columns, [*values, *marked], strict=True)
    }


def _remove(connection: Connection, target: Target, keys: list[dict[str, Any]]) -> None:
    """Remove rows, or mark them."""
    if len(target.key) == 1:
        (column,) = target.key
        for some in chunks([key[column.name] for key in keys]):
            connection.execute(_gone(target).where(column.in_(some)))
        return
    same = [column == sa.bindparam(f"key_{column.name}") for column in target.key]
    connection.execute(
        _gone(target).where(*same),
        [{f"key_{name}": value for name, value in key.items()} for key in keys],
    )


def _gone(target: Target) -> Any:
    if target.table.mark is None:
        return sa.delete(target.sql)
    return sa.update(target.sql).values({target.table.mark: sa.true()})
