"""A SQL database as a sink."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Sequence

from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection

from tega.sentinel.mapping import Mapping, digest
from tega.sentinel.sink import Event, FullPass, Sink, SinkError
from tega.sentinel.source import Batch, Entry, Position
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql.compare import Comparison
from tega.sentinel.sql.database import Database
from tega.sentinel.sql.passes import SqlPass
from tega.sentinel.sql.plan import Plan, Refused
from tega.sentinel.sql.writing import Refusal, Writer


class SqlSink(Sink):
    """Tables of a database.

    :param url: with the password, where there is one
    :param name: of the checkpoint
    :param source: what the checkpoint is of, for people
    :param interval: seconds between full passes over what the mapping says nothing about
    """

    forgets = False

    def __init__(
        self, url: URL, mapping: Mapping, name: str, source: str, interval: float
    ) -> None:
        self.prefixes = {scope.prefix: scope.interval(interval) for scope in mapping.scopes}
        self._database = Database(url, mapping, name, source)
        self.name = self._database.title

    async def open(self) -> Position | None:
        await self._database.run(self._database.open)
        return self._database.position

    async def close(self) -> None:
        await self._database.close()

    async def peek(self) -> Position | None:
        position, self.lacks = await self._database.run(self._database.peek)
        return position

    async def known(self) -> AsyncIterator[list[Entry]]:
        pieces = self._known()
        try:
            while (piece := await self._database.run(lambda: next(pieces, None))) is not None:
                yield piece
        finally:
            await self._database.run(pieces.close)

    def _known(self) -> Generator[list[Entry], None, None]:
        with self._database.begin() as connection:
            for piece in self._database.keys.all(connection):
                yield [Entry(key, value, revision) for _, key, revision, value in piece]

    async def apply(self, batches: Sequence[Batch], position: Position) -> list[Event]:
        events = await self._database.run(lambda: self._apply(batches, position))
        self._database.moved(position)
        return events

    def _apply(self, batches: Sequence[Batch], position: Position) -> list[Event]:
        """Take in changes: all at once, or with care where the database refuses something."""
        database = self._database
        refused: Refused = {}
        careful = False
        while True:
            try:
                with database.begin() as connection:
                    database.move(connection, position)
                    plan = Plan(database.mapping, database.targets, database.keys, refused)
                    plan.work_out(connection, [*self._again(connection, refused), *batches])
                    writer = Writer(database.own, database.targets, database.name, careful)
                    writer.write(connection, plan)
                    events = writer.events(plan.events)
                    self.unanswered = events
                return events
            except Refusal as refusal:
                if refusal.refused.keys() <= refused.keys():
                    raise SinkError(next(iter(refusal.refused.values()))) from None
                refused |= refusal.refused
            except exc.SQLAlchemyError as error:
                if careful or not dialects.is_about_data(error):
                    raise
                careful = True

    def _again(self, connection: Connection, refused: Refused) -> list[Batch]:
        """Keys taken before that are refused now that they are to give a row."""
        if not refused:
            return []
        revisions = {digest(key): revision for key, revision in refused}
        return [
            Batch(held.revision, (Entry(held.key, held.value, held.revision),))
            for held in self._database.keys.held(connection, revisions).values()
            if held.revision == revisions[held.id]
        ]

    def full_pass(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        return SqlPass(self._database, prefixes, position)

    def comparison(self, prefixes: Sequence[bytes], position: Position) -> FullPass:
        return Comparison(self._database, prefixes)
