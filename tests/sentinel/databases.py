"""Real SQL databases: MariaDB and PostgreSQL as processes of their own, and SQLite files.

The tests read and change them with the plain drivers, with no code of the product.
"""

from __future__ import annotations

import os
import pwd
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pymysql
import pytest
from processes import Process, find_program, free_port

Row = dict[str, Any]

#: An ordinary password, but for the characters that a URL must quote.
PASSWORD = "s3cr3t/@:word"
QUOTED = "s3cr3t%2F%40%3Aword"


#: The kinds of databases, and those that are servers.
KINDS = ("sqlite", "mariadb", "postgresql")
SERVERS = KINDS[1:]


def on(*kinds: str, of: Sequence[str] = KINDS) -> pytest.MarkDecorator:
    """Try a test of the fixture `database` with these kinds, and in a long run with the others."""
    return pytest.mark.parametrize(
        "database",
        [kind if kind in kinds else pytest.param(kind, marks=pytest.mark.long) for kind in of],
        indirect=True,
    )


#: What the kernel has for asynchronous I/O is for all servers of a machine, and may be used up.
_PLAIN_IO = "--innodb-use-native-aio=OFF"


class Database:
    """One database of a server, or a file: what the tests do to it.

    :ivar server: None where there is no server
    :ivar url: as SQLAlchemy has it
    """

    server: Process | None = None
    url: str
    quote = '"'
    #: Where its tables are.
    schema = "DATABASE()"

    #: What the driver raises where there is no such table, or database.
    missing: type[Exception]

    def execute(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        """Run a statement in a transaction of its own, on a connection of its own.

        :returns: names of columns, and rows
        """
        raise NotImplementedError

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], None]]:
        """A transaction that is left open for a while: gives what runs a statement in it."""
        raise NotImplementedError

    def cut_others(self) -> None:
        """Throw out the clients whose account is not that of the tests."""
        raise NotImplementedError

    def refuse(self, table: str, column: str, value: int) -> None:
        """Take no row with that value in a column from now on."""
        self.run(f"ALTER TABLE {table} ADD CONSTRAINT refused CHECK ({column} <> {value})")

    def tables(self) -> list[str]:
        """The names of all tables."""
        found = self.run(
            f"SELECT table_name FROM information_schema.tables WHERE table_schema = {self.schema}"
        )
        return sorted(name for (name,) in found)

    def rows(self, table: str) -> list[Row]:
        """All rows of a table, in no order; empty where there is no such table."""
        statement = f"SELECT * FROM {self.name(table)}"
        try:
            columns, rows = self.execute(statement)
        except self.missing:
            if table not in self.tables():
                return []
            columns, rows = self.execute(statement)  # It was made just now.
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def run(self, statement: str) -> list[tuple[Any, ...]]:
        """Run a statement; the rows that it gives."""
        return self.execute(statement)[1]

    def name(self, name: str) -> str:
        """A name in quotes."""
        return f"{self.quote}{name}{self.quote}"

    # -- the audit ------------------------------------------------------------------------------

    def audit(self, table: str, key: str) -> None:
        """Count every write to a table from now on: a trigger notes its kind and the row's key.

        It fires for each row that a statement writes, also where that leaves it as it was.
        """
        raise NotImplementedError

    def audited(self, table: str) -> list[tuple[str, str]]:
        """The writes to a table since `audit`: insert, update or delete, and the row's key."""
        found = self.run(f"SELECT op, k FROM audit_{table} ORDER BY seq")
        return [(str(op), str(key)) for op, key in found]


class SQLite(Database):
    """A SQLite file."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.url = f"sqlite:///{file}"

    missing = sqlite3.OperationalError

    def execute(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        connection = sqlite3.connect(self.file, timeout=20)
        try:
            with connection:
                cursor = connection.execute(statement)
                return [one[0] for one in cursor.description or ()], cursor.fetchall()
        finally:
            connection.close()

    def tables(self) -> list[str]:
        if not self.file.exists():
            return []
        return sorted(
            name for (name,) in self.run("SELECT name FROM sqlite_master WHERE type = 'table'")
        )

    def refuse(self, table: str, column: str, value: int) -> None:
        for op in ("INSERT", "UPDATE"):
            self.run(
                f"CREATE TRIGGER refuse_{op} BEFORE {op} ON {table} WHEN NEW.{column} = {value} "
                "BEGIN SELECT RAISE(ABORT, 'refused'); END"
            )

    def audit(self, table: str, key: str) -> None:
        self.run(f"CREATE TABLE audit_{table} (seq INTEGER PRIMARY KEY, op TEXT, k TEXT)")
        for op, side in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
            self.run(
                f"CREATE TRIGGER audit_{table}_{op} AFTER {op} ON {self.name(table)} BEGIN "
                f"INSERT INTO audit_{table} (op, k) VALUES ('{op}', {side}.{self.name(key)}); END"
            )


class MariaDB(Process):
    """A MariaDB server, with data of its own."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        (directory / "tmp").mkdir()
        program = find_program("mariadb-install-db")
        assert program is not None
        done = subprocess.run(
            [
                program, "--no-defaults", f"--user={pwd.getpwuid(os.getuid()).pw_name}",
                f"--datadir={directory / 'data'}", "--auth-root-authentication-method=normal",
                "--skip-test-db", "--innodb-log-file-size=8M", _PLAIN_IO,
                f"--tmpdir={directory / 'tmp'}",
            ],
            check=False, capture_output=True, text=True,
        )  # fmt: skip
        logs = "".join([one.read_text() for one in (directory / "data").glob("*.err")])
        assert done.returncode == 0, done.stdout + done.stderr + logs

    @staticmethod
    def is_installed() -> bool:
        return bool(find_program("mariadbd") and find_program("mariadb-install-db"))

    def command(self) -> Sequence[str]:
        program = find_program("mariadbd")
        assert program is not None
        return [
            program, "--no-defaults", f"--user={pwd.getpwuid(os.getuid()).pw_name}",
            f"--datadir={self.directory / 'data'}", f"--socket={self.directory / 'socket'}",
            "--bind-address=127.0.0.1", f"--port={self.port}", "--performance-schema=OFF",
            "--innodb-buffer-pool-size=32M", "--innodb-log-file-size=8M", "--skip-name-resolve",
            f"--pid-file={self.directory / 'pid'}",
            # A process is killed here, not the machine.
            "--innodb-flush-log-at-trx-commit=2", _PLAIN_IO,
            # A server that starts clears it, whoever's it was.
            f"--tmpdir={self.directory / 'tmp'}",
        ]  # fmt: skip

    def connect(self, database: str | None = None, **options: Any) -> pymysql.Connection[Any]:
        return pymysql.connect(
            host="127.0.0.1", port=self.port, user="root", database=database, charset="utf8mb4",
            **options,
        )

    def is_ready(self) -> bool:
        try:
            self.connect(connect_timeout=5).close()
        except (OSError, pymysql.MySQLError):
            return False
        return True

    def start(self) -> None:
        new = not (self.directory / "said.txt").exists()
        super().start()
        if new:
            with self.connect().cursor() as cursor:
                cursor.execute("CREATE USER sentinel@127.0.0.1 IDENTIFIED BY %s", [PASSWORD])
                cursor.execute("GRANT ALL ON *.* TO sentinel@127.0.0.1")

    def database(self, name: str, charset: str = "utf8mb4") -> MariaDatabase:
        """A new database, empty."""
        with self.connect(autocommit=True).cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")
            cursor.execute(f"CREATE DATABASE `{name}` CHARACTER SET {charset}")
        return MariaDatabase(self, name)

    def drop(self, name: str) -> None:
        """Remove a database, if it is there."""
        with self.connect(autocommit=True).cursor() as cursor:
            cursor.execute(f"DROP DATABASE IF EXISTS `{name}`")


class MariaDatabase(Database):
    """A database of a MariaDB server."""

    quote = "`"

    def __init__(self, server: MariaDB, name: str) -> None:
        self.server: MariaDB = server
        self.database = name
        self.url = f"mysql+pymysql://sentinel:{QUOTED}@127.0.0.1:{server.port}/{name}"

    missing = pymysql.ProgrammingError

    def execute(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        connection = self.server.connect(self.database, autocommit=True, read_timeout=30)
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement)
                return [one[0] for one in cursor.description or ()], list(cursor.fetchall())
        finally:
            connection.close()

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], None]]:
        with self.server.connect(self.database) as connection, connection.cursor() as cursor:
            yield lambda statement: (cursor.execute(statement), None)[1]
            connection.commit()

    def cut_others(self) -> None:
        for (number,) in self.run(
            "SELECT id FROM information_schema.processlist WHERE user = 'sentinel'"
        ):
            self.run(f"KILL {number}")

    def audit(self, table: str, key: str) -> None:
        self.run(
            f"CREATE TABLE audit_{table} (seq INT AUTO_INCREMENT PRIMARY KEY, op TEXT, k TEXT)"
        )
        for op, side in (("insert", "NEW"), ("update", "NEW"), ("delete", "OLD")):
            self.run(
                f"CREATE TRIGGER audit_{table}_{op} AFTER {op} ON {self.name(table)} FOR EACH ROW "
                f"INSERT INTO audit_{table} (op, k) VALUES ('{op}', {side}.{self.name(key)})"
            )


class PostgreSQL(Process):
    """A PostgreSQL server, with data of its own.

    It does not run as root: there, the account is ``postgres``, or else ``nobody``, and the
    directory must be one that this account reaches.
    """

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.port = free_port()
        if (account := self.account()) is not None:
            shutil.chown(directory, account)
        program = self.find("initdb")
        assert program is not None
        done = subprocess.run(
            [
                program, "--pgdata", str(directory / "data"), "--username", "root", "--no-sync",
                "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8",
            ],
            check=False, capture_output=True, text=True, cwd=directory, user=account,
            extra_groups=None if account is None else [],
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        allowed = directory / "data" / "pg_hba.conf"
        allowed.write_text(
            "host all sentinel 127.0.0.1/32 scram-sha-256\n" + allowed.read_text()
        )

    @staticmethod
    def find(name: str) -> str | None:
        versions = sorted(
            Path("/usr/lib/postgresql").glob("*"), key=lambda path: float(path.name), reverse=True
        )
        return find_program(name, *(str(version / "bin") for version in versions))

    @classmethod
    def is_installed(cls) -> bool:
        return bool(cls.find("initdb") and cls.find("postgres"))

    def account(self) -> str | None:
        if os.getuid() != 0:
            return None
        there = {one.pw_name for one in pwd.getpwall()}
        return "postgres" if "postgres" in there else "nobody"

    def command(self) -> Sequence[str]:
        program = self.find("postgres")
        assert program is not None
        return [
            program, "-D", str(self.directory / "data"), "-p", str(self.port),
            "-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}",
            "-c", "shared_buffers=16MB",
            # A process is killed here, not the machine.
            "-c", "fsync=off",
        ]  # fmt: skip

    def connect(self, database: str = "postgres", **options: Any) -> psycopg.Connection[Any]:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="root", dbname=database, autocommit=True,
            **options,
        )

    def is_ready(self) -> bool:
        try:
            self.connect(connect_timeout=5).close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        new = not (self.directory / "said.txt").exists()
        super().start()
        if new:
            with self.connect() as connection:
                connection.execute(f"CREATE ROLE sentinel SUPERUSER LOGIN PASSWORD '{PASSWORD}'")

    def database(self, name: str) -> PostgresDatabase:
        """A new database, empty."""
        with self.connect() as connection:
            connection.execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')
            connection.execute(f'CREATE DATABASE "{name}"')
        return PostgresDatabase(self, name)


class PostgresDatabase(Database):
    """A database of a PostgreSQL server."""

    schema = "current_schema()"

    def __init__(self, server: PostgreSQL, name: str) -> None:
        self.server: PostgreSQL = server
        self.database = name
        self.url = f"postgresql+psycopg://sentinel:{QUOTED}@127.0.0.1:{server.port}/{name}"

    missing = psycopg.errors.UndefinedTable

    def execute(self, statement: str) -> tuple[list[str], list[tuple[Any, ...]]]:
        with self.server.connect(self.database) as connection:
            cursor = connection.execute(statement)
            if cursor.description is None:
                return [], []
            return [one.name for one in cursor.description], cursor.fetchall()

    @contextmanager
    def transaction(self) -> Iterator[Callable[[str], None]]:
        with self.server.connect(self.database) as connection, connection.transaction():
            yield lambda statement: (connection.execute(statement.encode()), None)[1]

    def cut_others(self) -> None:
        self.run(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'sentinel'"
        )

    def audit(self, table: str, key: str) -> None:
        self.run(f"CREATE TABLE audit_{table} (seq SERIAL PRIMARY KEY, op TEXT, k TEXT)")
        quoted = self.name(key)
        self.run(
            f"CREATE FUNCTION audit_{table}() RETURNS trigger AS $$ BEGIN "
            f"INSERT INTO audit_{table} (op, k) VALUES (lower(TG_OP), "
            f"CASE TG_OP WHEN 'DELETE' THEN OLD.{quoted} ELSE NEW.{quoted} END); RETURN NULL; "
            "END $$ LANGUAGE plpgsql"
        )
        self.run(
            f"CREATE TRIGGER audit AFTER INSERT OR UPDATE OR DELETE ON {self.name(table)} "
            f"FOR EACH ROW EXECUTE FUNCTION audit_{table}()"
        )
