"""What differs from one kind of database to the next."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import sqlalchemy as sa
from sqlalchemy import exc
from sqlalchemy.engine import URL, Connection, Dialect, Engine

from tega.errors import Malformed
from tega.sentinel.columns import Type
from tega.sentinel.sink import SinkError

#: Most seconds to connect, and to wait for the answer to a statement.
_CONNECT: Final = 10
_ANSWER: Final = 60

#: Where the tables of the sentinel go on a server when no database is named.
_OWN_SCHEMA: Final = "tega_sentinel"

#: Errors of MariaDB and MySQL that are about the data, though the driver says otherwise: CHECK
#: constraints, SIGNAL in triggers, texts and values that cannot be converted.
_MYSQL_DATA: Final = frozenset((1292, 1364, 1366, 1411, 1644, 3819, 3988, 4025))


def read_url(text: str) -> URL:
    """Read the address of a database.

    :raises Malformed: where it is none
    """
    try:
        url = sa.make_url(text)
        url.get_dialect()
    except (exc.ArgumentError, exc.NoSuchModuleError, ValueError, ImportError):
        # The error of SQLAlchemy may show a password.
        raise Malformed(
            f"sink address {text.partition(':')[0][:32]}:... is wrong; right is one such as "
            "sqlite:////var/lib/tega/mirror.db, mysql+pymysql://USER@HOST/DATABASE, "
            "postgresql+psycopg://USER@HOST/DATABASE, etcd://HOST:PORT/PREFIX, tega://HOST:PORT/PATH"
        ) from None
    return url


def connect(url: URL) -> Engine:
    """The engine of a database. It connects when it is used.

    :raises Malformed: where the driver is not installed
    """
    name = url.get_backend_name()
    arguments: dict[str, Any] = {}
    if url.get_driver_name() == "pymysql":
        arguments = {
            "connect_timeout": _CONNECT, "read_timeout": _ANSWER, "write_timeout": _ANSWER
        }
    elif url.get_driver_name() == "psycopg":
        arguments = {
            "connect_timeout": _CONNECT, "keepalives_idle": 10, "keepalives_interval": 5,
            "keepalives_count": 3, "tcp_user_timeout": _ANSWER * 1000,
        }  # fmt: skip
    try:
        engine = sa.create_engine(url, connect_args=arguments, hide_parameters=True)
    except ImportError as error:
        raise Malformed(
            f"the sink needs a driver that is not installed ({error}): tega[sentinel] has those "
            "for mysql+pymysql:// and postgresql+psycopg://, others are to be installed beside it"
        ) from None
    if name in ("mysql", "mariadb"):
        sa.event.listen(engine, "connect", _strict)
    # A connection that cannot even be given up is no news: what it was for has failed, and tells.
    logging.getLogger("sqlalchemy.pool").setLevel(logging.CRITICAL)
    return engine


def missing_file(url: URL) -> Path | None:
    """The file of a database that is one, where it is not there; to connect would make it."""
    if url.get_backend_name() != "sqlite" or url.database in (None, "", ":memory:"):
        return None
    assert url.database is not None
    if url.database.startswith("file:"):  # A URI of SQLite's own, which says what may be made.
        return None
    file = Path(url.database)
    return None if file.exists() else file


def module(dialect: Dialect) -> Any:
    """SQLAlchemy's module for a kind of database; those of others need not be loaded."""
    name = "mysql" if is_mysql(dialect) else dialect.name
    return importlib.import_module(f"sqlalchemy.dialects.{name}")


def _strict(connection: Any, record: Any) -> None:
    """Let MariaDB and MySQL refuse what does not fit, instead of cutting it."""
    with connection.cursor() as cursor:
        cursor.execute("SET SESSION sql_mode = CONCAT(@@sql_mode, ',STRICT_ALL_TABLES')")


def unhindered(connection: Connection) -> None:
    """Let who reads a SQLite file hold up nobody who writes it, and the other way round.

    Such a file is there to be asked, also for long, and changes all the time.
    """
    if connection.dialect.name == "sqlite":
        connection.exec_driver_sql("PRAGMA journal_mode = WAL")


def is_mysql(dialect: Dialect) -> bool:
    """Whether it is MariaDB or MySQL."""
    return dialect.name in ("mysql", "mariadb")


#: Character sets of MariaDB and MySQL, and how Python writes them; "" is all of Unicode.
_CODECS: Final = {
    "utf8mb4": "", "utf8mb3": "utf8mb3", "utf8": "utf8mb3", "latin1": "cp1252", "ascii": "ascii",
}  # fmt: skip


class Charset(NamedTuple):
    """The character set of a column of MariaDB or MySQL, and how it compares texts."""

    name: str
    collation: str

    def holds(self, text: str) -> bool:
        """Whether it has all these characters."""
        codec = _CODECS[self.name]
        if codec == "utf8mb3":
            return all(character <= "\uffff" for character in text)
        try:
            text.encode(codec or "utf-8")
        except UnicodeEncodeError:
            return False
        return True

    @property
    def pads(self) -> bool:
        """Whether texts are the same that differ in spaces at their end."""
        return not ("_nopad_" in self.collation or "_0900_" in self.collation)

    def problem(self, dialect: Dialect, key: bool) -> str | None:
        """What is wrong with it; None: nothing.

        :param key: whether rows are told apart by it
        """
        if self.name not in _CODECS:
            return f"its character set is {self.name}: change it to utf8mb4"
        if key and not self.collation.endswith("_bin"):
            return (
                "it is part of the primary key, and texts that differ, in case or otherwise, may "
                f"be the same under {self.collation}: change it to character set utf8mb4, "
                f"collation {collation(dialect)}"
            )
        return None


def charsets(connection: Connection, schema: str | None, table: str) -> dict[str, Charset]:
    """The character sets of the columns of a table, where that is a matter of columns."""
    if not is_mysql(connection.dialect):
        return {}
    query = sa.text(
        "SELECT column_name, character_set_name, collation_name FROM information_schema.columns "
        "WHERE table_schema = COALESCE(:schema, DATABASE()) AND table_name = :table "
        "AND character_set_name IS NOT NULL"
    )
    found = connection.execute(query, {"schema": schema, "table": table})
    return {name: Charset(charset, order) for name, charset, order in found}


def collation(dialect: Dialect) -> str:
    """The collation of MariaDB or MySQL under which texts are the same only if they are."""
    mariadb = dialect.name == "mariadb" or getattr(dialect, "is_mariadb", False)
    return "utf8mb4_nopad_bin" if mariadb else "utf8mb4_0900_bin"


def sql_type(kind: Type, dialect: Dialect) -> sa.types.TypeEngine[Any]:
    """The type that a column gets in a database."""
    made: dict[str, sa.types.TypeEngine[Any]]
    if is_mysql(dialect):
        mysql = module(dialect)
        same = {"charset": "utf8mb4", "collation": collation(dialect)}
        made = {
            "string": mysql.VARCHAR(kind.size, **same),
            "text": mysql.LONGTEXT(**same),
            "json": mysql.LONGTEXT(**same),
            "datetime": mysql.DATETIME(fsp=kind.size),
        }
    else:
        made = {
            "string": sa.String(kind.size),
            "text": sa.Text(),
            "json": sa.Text(),
            "datetime": sa.DateTime(),
        }
        if dialect.name == "postgresql":
            made["datetime"] = module(dialect).TIMESTAMP(precision=kind.size)
    made |= {"integer": sa.BigInteger(), "number": sa.Double(), "boolean": sa.Boolean()}
    return made[kind.kind]


def blob(dialect: Dialect) -> Any:
    """The type of bytes of any length."""
    return module(dialect).LONGBLOB() if is_mysql(dialect) else sa.LargeBinary()


def place(schema: str | None, name: str, dialect: Dialect) -> tuple[str | None, str]:
    """Schema and name of a table: SQLite, which has no schemas, gets both in the name."""
    if schema is not None and dialect.name == "sqlite":
        return None, f"{schema}_{name}"
    return schema, name


def own_schema(url: URL, dialect: Dialect) -> str | None:
    """Where the sentinel's own tables go; None: into the database of the connection."""
    return _OWN_SCHEMA if is_mysql(dialect) and not url.database else None


def upsert(table: sa.Table, key: Sequence[str], dialect: Dialect) -> Any:
    """A statement that inserts rows, or updates those that are there; None: there is no such."""
    others = [column.name for column in table.columns if column.name not in key]
    if is_mysql(dialect):
        insert = module(dialect).insert(table)
        # Without another column, one of the key is given the value that it has.
        return insert.on_duplicate_key_update(
            {name: insert.inserted[name] for name in others or key}
        )
    if dialect.name not in ("postgresql", "sqlite"):
        return None
    made = module(dialect).insert(table)
    if not others:
        return made.on_conflict_do_nothing(index_elements=list(key))
    return made.on_conflict_do_update(
        index_elements=list(key), set_={name: made.excluded[name] for name in others}
    )


def write(
    connection: Connection,
    table: sa.Table,
    key: Sequence[str],
    rows: list[dict[str, Any]],
    one_by_one: bool = False,
) -> None:
    """Insert rows, or update those that are there.

    :param one_by_one: look for each row, instead of leaving that to the database
    """
    if not rows:
        return
    statement = None if one_by_one else upsert(table, key, connection.dialect)
    if statement is not None:
        connection.execute(statement, rows)
        return
    same = [table.c[name] == sa.bindparam(f"key_{name}") for name in key]
    others = [name for name in rows[0] if name not in key]
    for row in rows:
        keys = {f"key_{name}": row[name] for name in key}
        found = connection.execute(sa.select(sa.literal(1)).select_from(table).where(*same), keys)
        if found.first() is None:
            connection.execute(sa.insert(table), row)
        elif others:
            update = sa.update(table).where(*same)
            connection.execute(update, {**{name: row[name] for name in others}, **keys})


def is_about_data(error: exc.SQLAlchemyError) -> bool:
    """Whether another value would have been taken: an error that trying again does not mend."""
    if isinstance(error, exc.StatementError) and not isinstance(error, exc.DBAPIError):
        return True  # A value that cannot be bound.
    if not isinstance(error, exc.DBAPIError) or error.connection_invalidated:
        return False
    if isinstance(error, (exc.DataError, exc.IntegrityError)):
        return True
    arguments: tuple[Any, ...] = getattr(error.orig, "args", ())
    return bool(arguments) and arguments[0] in _MYSQL_DATA


def sink_error(error: exc.SQLAlchemyError) -> SinkError:
    """The error as a sink raises it: what the database said, without statement and values."""
    original = getattr(error, "orig", None)
    text = reason(original if original is not None else error)
    if text == "unable to open database file":
        text += ": its directory must be there, and this program allowed to write into it"
    return SinkError(text)


def reason(error: BaseException) -> str:
    """What a database has said, in one line."""
    arguments = error.args
    if len(arguments) == 2 and isinstance(arguments[0], int):
        return f"{arguments[1]} ({arguments[0]})"
    return " ".join(str(error).split())[:500] or type(error).__name__
