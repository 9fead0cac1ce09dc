"""The tables: made where they are missing, checked where they are there."""

from __future__ import annotations

from collections.abc import Mapping as Readable
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Dialect, Inspector
from sqlalchemy.schema import CreateSchema

from tega.sentinel.columns import Misfit, Type, shown
from tega.sentinel.mapping import DIGEST, Mapping, Table
from tega.sentinel.sink import Unfit
from tega.sentinel.sql import dialect as dialects

#: Characters of the name of a sentinel, most.
MAX_NAME: Final = 64


class Own(NamedTuple):
    """The sentinel's own tables; doc/sentinel.md describes them.

    :ivar checkpoint: ``tega_sentinel``, one row for each name: how far it is
    :ivar keys: ``tega_sentinel_keys``, the keys that give rows
    :ivar rejects: ``tega_sentinel_rejects``, the keys that do not fit
    """

    checkpoint: sa.Table
    keys: sa.Table
    rejects: sa.Table


class Target(NamedTuple):
    """A table of the mapping, as it is in the database.

    :ivar contested: whether MariaDB or MySQL could take a row for another one by another unique
        key of the table
    :ivar charsets: what the columns of a table that was there can hold, by name
    """

    table: Table
    sql: sa.Table
    contested: bool = False
    charsets: Readable[str, dialects.Charset] = {}

    @property
    def key(self) -> tuple[sa.Column[Any], ...]:
        """The columns of the primary key."""
        return tuple([self.sql.c[name] for name in self.table.primary_key])

    @property
    def columns(self) -> tuple[sa.Column[Any], ...]:
        """The columns of the mapping, in its order, and last the mark, if there is one."""
        names = [column.name for column in self.table.columns]
        return tuple([self.sql.c[name] for name in names + self.marks])

    def check(self, values: Sequence[Any]) -> None:
        """Refuse what the columns cannot hold.

        :raises Misfit: naming the column
        """
        for column, value in zip(self.table.columns, values, strict=True):
            charset = self.charsets.get(column.name)
            if charset is None or type(value) is not str:
                continue
            if not charset.holds(value):
                raise Misfit(
                    f"{column.name} is {shown(value)}, but its column holds {charset.name} only"
                )
            if charset.pads and value.endswith(" ") and column.name in self.table.primary_key:
                raise Misfit(
                    f"{column.name} is {shown(value)}, but {charset.collation}, which its column "
                    "has, does not tell that from the same without spaces at its end"
                )

    @property
    def marks(self) -> list[str]:
        """The mark's column, in a list; nothing where rows are removed."""
        return [] if self.table.mark is None else [self.table.mark]


def own_tables(url: URL, dialect: Dialect) -> Own:
    """The sentinel's own tables."""
    metadata = sa.MetaData(schema=dialects.own_schema(url, dialect))
    fixed: dict[str, Any] = {"mysql_engine": "InnoDB", "mariadb_engine": "InnoDB"}
    text = dialects.sql_type(Type("text"), dialect)
    when = dialects.sql_type(Type("datetime"), dialect)

    def ascii_(size: int) -> Any:
        if dialects.is_mysql(dialect):
            return dialects.module(dialect).VARCHAR(size, charset="ascii", collation="ascii_bin")
        return sa.String(size)

    def key() -> list[sa.Column[Any]]:
        return [
            sa.Column("name", ascii_(MAX_NAME), primary_key=True),
            sa.Column("id", ascii_(DIGEST), primary_key=True),
            sa.Column("scope", ascii_(DIGEST), nullable=False),
            sa.Column("source_key", dialects.blob(dialect), nullable=False),
            sa.Column("revision", sa.BigInteger, nullable=False),
            sa.Column("value", dialects.blob(dialect), nullable=False),
            sa.Column("digest", ascii_(DIGEST), nullable=False),
        ]

    checkpoint = sa.Table(
        "tega_sentinel",
        metadata,
        sa.Column("name", ascii_(MAX_NAME), primary_key=True),
        sa.Column("source", text, nullable=False),
        sa.Column("life", ascii_(255), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("mapping", ascii_(DIGEST), nullable=False),
        sa.Column("holder", ascii_(64), nullable=False),
        sa.Column("changed", when, nullable=False),
        **fixed,
    )
    keys = sa.Table(
        "tega_sentinel_keys",
        metadata,
        *key(),
        sa.Column("row_table", text, nullable=False),
        sa.Column("row_id", ascii_(DIGEST), nullable=False),
        sa.Index("tega_sentinel_keys_row", "name", "row_id"),
        sa.Index("tega_sentinel_keys_scope", "name", "scope"),
        **fixed,
    )
    rejects = sa.Table(
        "tega_sentinel_rejects",
        metadata,
        *key(),
        sa.Column("reason", text, nullable=False),
        sa.Column("at", when, nullable=False),
        sa.Index("tega_sentinel_rejects_scope", "name", "scope"),
        **fixed,
    )
    return Own(checkpoint, keys, rejects)


def targets(mapping: Mapping, dialect: Dialect) -> dict[str, Target]:
    """The tables of a mapping, by title."""
    made = {}
    for table in mapping.tables:
        schema, name = dialects.place(table.schema, table.name, dialect)
        columns: list[sa.Column[Any]] = [
            sa.Column(
                column.name,
                dialects.sql_type(column.type, dialect),
                primary_key=column.name in table.primary_key,
                autoincrement=False,
                nullable=not column.required,
            )
            for column in table.columns
        ]
        if table.mark is not None:
            columns.append(
                sa.Column(table.mark, sa.Boolean, nullable=False, server_default=sa.false())
            )
        made[table.title] = Target(
            table,
            sa.Table(
                name, sa.MetaData(), *columns, schema=schema,
                mysql_engine="InnoDB", mariadb_engine="InnoDB",
            ),
        )  # fmt: skip
    return made


def prepare(connection: Connection, own: Own, mapped: dict[str, Target]) -> list[str]:
    """Make what is missing, and check what is there.

    :returns: what was made
    :raises Unfit: where a table is there that cannot be used
    """
    inspector = sa.inspect(connection)
    made = []
    wanted = [*own, *[target.sql for target in mapped.values()]]
    there = set(inspector.get_schema_names()) if any(table.schema for table in wanted) else set()
    for table in wanted:
        if table.schema is not None and table.schema not in there:
            connection.execute(CreateSchema(table.schema))
            there.add(table.schema)
            made.append(f"schema {table.schema}")
    for title, target in mapped.items():
        if inspector.has_table(target.sql.name, schema=target.sql.schema):
            others = check(inspector, target)
            charsets = dialects.charsets(connection, target.sql.schema, target.sql.name)
            for column in target.table.columns:
                charset = charsets.get(column.name)
                key = column.name in target.table.primary_key
                problem = None if charset is None else charset.problem(connection.dialect, key)
                if problem is not None:
                    raise Unfit(f"table {target.sql.fullname}: column {column.name}: {problem}")
            mapped[title] = target._replace(
                contested=others and dialects.is_mysql(connection.dialect), charsets=charsets
            )
        else:
            target.sql.create(connection)
            made.append(f"table {target.sql.fullname}")
    for table in own:
        table.create(connection, checkfirst=True)
    return made


def check(inspector: Inspector, target: Target) -> bool:
    """Refuse a table that the mapping does not go with.

    :returns: whether it has unique keys beside the one of the mapping
    :raises Unfit: naming table, column and what to do
    """
    name, schema = target.sql.name, target.sql.schema
    title = f"table {target.sql.fullname}"
    there = {column["name"]: column for column in inspector.get_columns(name, schema=schema)}
    wanted = {column.name: column for column in target.columns}
    for column in wanted:
        if column not in there:
            raise Unfit(f"{title} has no column {column}: add it, or take it out of the mapping")
    for column, found in there.items():
        needed = not found["nullable"] and found.get("default") is None
        if column not in wanted and needed and found.get("autoincrement") is not True:
            raise Unfit(
                f"{title}: column {column} must have a value, but the mapping gives it none: give "
                "it a default, let it be NULL, or add it to the mapping"
            )
    others = _check_key(inspector, target, title)
    for mapped in target.table.columns:
        found = there[mapped.name]
        problem = _problem(mapped.type, found["type"], inspector.dialect)
        if problem is not None:
            raise Unfit(
                f"{title}: column {mapped.name} is {found['type']}, the mapping says "
                f"{mapped.type}: {problem}"
            )
        if not found["nullable"] and not mapped.required:
            raise Unfit(
                f"{title}: column {mapped.name} cannot be NULL, but the mapping may give NULL: let "
                "it be NULL, or add required: true to the mapping"
            )
    if dialects.is_mysql(inspector.dialect):
        options = inspector.get_table_options(name, schema=schema)
        engine = options.get("mysql_engine") or options.get("mariadb_engine") or "InnoDB"
        if engine.lower() != "innodb":
            raise Unfit(f"{title} is of engine {engine}, which has no transactions: "
                        f"ALTER TABLE {target.sql.fullname} ENGINE=InnoDB")
    return others


def _check_key(inspector: Inspector, target: Target, title: str) -> bool:
    name, schema = target.sql.name, target.sql.schema
    keys = [inspector.get_pk_constraint(name, schema=schema)["constrained_columns"]]
    keys += [one["column_names"] for one in inspector.get_unique_constraints(name, schema=schema)]
    wanted = set(target.table.primary_key)
    keys = [key for key in keys if key]
    if not any(set(key) == wanted for key in keys):
        raise Unfit(
            f"{title} has neither primary key nor unique constraint of ({', '.join(wanted)}), "
            "which the mapping has as its primary key"
        )
    return any(set(key) != wanted for key in keys)


#: What a column of a kind may be in a table that is there.
_FITTING: Final[dict[str, tuple[type[sa.types.TypeEngine[Any]], ...]]] = {
    "string": (sa.String,),
    "text": (sa.String,),
    "json": (sa.String,),
    "integer": (sa.Integer,),
    "number": (sa.Float,),
    "boolean": (sa.Boolean, sa.Integer),
    "datetime": (sa.DateTime,),
}


def _problem(kind: Type, found: Any, dialect: Dialect) -> str | None:
    """What is wrong with the type of a column; None: nothing."""
    if dialect.name == "sqlite":
        return None  # It takes anything anywhere.
    if not isinstance(found, _FITTING[kind.kind]):
        return "change one of them"
    if kind.kind in ("string", "text", "json"):
        length = getattr(found, "length", None)
        if length is not None and (kind.kind != "string" or length < kind.size):
            return "it may be too short: make it longer, or the mapping shorter"
    if kind.kind == "datetime" and dialects.is_mysql(dialect):
        digits = getattr(found, "fsp", None) or 0
        if digits < kind.size:
            return f"it would round: write datetime({digits}) in the mapping"
    return None
