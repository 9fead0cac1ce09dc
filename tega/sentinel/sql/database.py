"""A database with the tables of a mapping, and the checkpoint in it."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Final, TypeVar

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection

from tega.sentinel.mapping import Mapping
from tega.sentinel.sink import Fenced, SinkError
from tega.sentinel.source import Position
from tega.sentinel.sql import dialect as dialects
from tega.sentinel.sql import schema
from tega.sentinel.sql.plan import Keys, Refused
from tega.sentinel.sql.writing import now

T = TypeVar("T")

#: The digest of no mapping.
_NONE: Final = ""

#: A database with nothing in it.
_EMPTY: Final = URL.create("sqlite")


class Database:
    """A database.

    :param url: with the password, where there is one
    :param name: of the checkpoint
    :param source: what the checkpoint is of, for people
    :ivar title: its address without the password
    :ivar own: the sentinel's own tables; `keys` reads them, `targets` has those of the mapping:
        from `open` or `peek` on
    :ivar position: where the mirror is; None: no whole pass was made yet
    :ivar refused: what the database has refused in the full pass that is to be made again
    :ivar careful: whether that is to write row by row
    :ivar retries: whether keys are tried that did not fit before: once for each process
    """

    def __init__(self, url: URL, mapping: Mapping, name: str, source: str) -> None:
        self.title = url.render_as_string(hide_password=True)
        self.mapping = mapping
        self.name = name
        self._source = source
        self._engine = dialects.connect(url)
        self._url = url
        self._nowhere = False
        self.own: schema.Own
        self.keys: Keys
        self.targets: dict[str, schema.Target] = {}
        # All work on the database is done here, one thing after the other, beside the loop.
        self._thread = ThreadPoolExecutor(1, "sql")
        self._holder = str(uuid.uuid4())
        self._claimed = False
        # Of the checkpoint, as this sentinel has left it.
        self._revision = 0
        self.position: Position | None = None
        self.refused: Refused = {}
        self.careful = False
        self.retries = True

    async def run(self, work: Callable[[], T]) -> T:
        """Do something with the database, beside the loop.

        :raises SinkError: where the database fails
        """
        return await asyncio.get_running_loop().run_in_executor(self._thread, _failing(work))

    async def close(self) -> None:
        """Disconnect, after what is under way."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._engine.dispose)
        self._thread.shutdown()

    # To be called in `run`

    def open(self) -> list[str]:
        """Connect, make what is missing, and take over the checkpoint.

        :returns: what was made
        :raises Unfit: where a table cannot be used
        :raises Fenced: where another sentinel has taken it over since
        """
        self._engine.dispose()
        with self._engine.connect() as connection:
            dialects.unhindered(connection)
        with self.begin() as connection:
            self._describe(connection)
            made = schema.prepare(connection, self.own, self.targets)
        with self.begin() as connection:
            self._claim(connection)
            self.position = self._read(connection)
        return made

    def _describe(self, connection: Connection) -> None:
        """Say how the tables are: connected, for only then is known what the server is."""
        self.own = schema.own_tables(self._url, connection.dialect)
        self.keys = Keys(self.own, self.name)
        self.targets = schema.targets(self.mapping, connection.dialect)

    def _claim(self, connection: Connection) -> None:
        table = self.own.checkpoint
        mine = table.c.name == self.name
        if self._claimed:
            holder = connection.scalar(sa.select(table.c.holder).where(mine))
            if holder not in (None, self._holder):
                raise self._fenced()
        claim = sa.update(table).where(mine).values(holder=self._holder)
        if connection.execute(claim).rowcount == 0:
            connection.execute(sa.insert(table), {
                "name": self.name, "source": self._source, "life": "", "revision": 0,
                "mapping": _NONE, "holder": self._holder, "changed": now(),
            })  # fmt: skip
        revision = connection.execute(sa.select(table.c.revision).where(mine)).scalar_one()
        self._revision = revision
        self._claimed = True

    def peek(self) -> tuple[Position | None, list[str]]:
        """The position of the mirror, and what is not there yet; changes nothing."""
        file = dialects.missing_file(self._url)
        if file is not None or self._nowhere:
            self._nowhere = file is not None
            self._engine.dispose()
            # An empty database instead: to connect would make the file.
            self._engine = dialects.connect(_EMPTY if self._nowhere else self._url)
        with self.begin() as connection:
            self._describe(connection)
            there = self.has(connection)
            position = self._read(connection) if there(self.own.checkpoint) else None
            tables = [one.sql for one in self.targets.values() if not there(one.sql)]
        if file is not None:
            return position, [f"file {file}"]
        return position, [f"table {table.fullname}" for table in tables]

    def _read(self, connection: Connection) -> Position | None:
        table = self.own.checkpoint
        row = connection.execute(sa.select(table).where(table.c.name == self.name)).first()
        # Of another mapping or source it says nothing about this one.
        if row is None or row.mapping != self.mapping.digest or row.source != self._source:
            return None
        return Position(row.life, row.revision)

    @staticmethod
    def has(connection: Connection) -> Callable[[sa.Table], bool]:
        """Tells whether tables are there."""
        inspector = sa.inspect(connection)
        schemas = {None, *inspector.get_schema_names()}
        return lambda table: table.schema in schemas and inspector.has_table(
            table.name, schema=table.schema
        )

    def move(self, connection: Connection, position: Position) -> None:
        """Let the checkpoint be at a position, if it is still this sentinel's own.

        :raises Fenced: where it is not
        :raises SinkError: where it is not where this sentinel has left it
        """
        table = self.own.checkpoint
        mine = sa.and_(table.c.name == self.name, table.c.holder == self._holder)
        # Whoever does this first has the row until the end of the transaction.
        moved = connection.execute(
            sa.update(table)
            .where(mine, table.c.revision == self._revision)
            .values(
                source=self._source, life=position.life, revision=position.revision,
                mapping=self.mapping.digest, changed=now(),
            )
        )  # fmt: skip
        if moved.rowcount != 1:
            if connection.execute(sa.select(table.c.name).where(mine)).first() is None:
                raise self._fenced()
            raise SinkError(f"somebody has changed the checkpoint {self.name!r}")

    def _fenced(self) -> Fenced:
        return Fenced(
            f"another sentinel has taken over the checkpoint {self.name!r} in {self.title}: "
            "stop one of them, or give each its own --name"
        )

    def moved(self, position: Position) -> None:
        """A transaction that led to a position is committed."""
        self.position = position
        self._revision = position.revision

    def passed(self, position: Position) -> None:
        """So is a full pass."""
        self.moved(position)
        self.refused = {}
        self.careful = self.retries = False

    @contextmanager
    def begin(self) -> Iterator[Connection]:
        """A transaction."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    def connect(self) -> Connection:
        """A connection of its own, for something longer."""
        return self._engine.connect()


def _failing(work: Callable[[], T]) -> Callable[[], T]:
    """The same work, its errors as a sink raises them."""

    def run() -> T:
        try:
            return work()
        except exc.SQLAlchemyError as error:
            raise dialects.sink_error(error) from None

    return run
