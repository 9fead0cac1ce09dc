"""The services that the tests share: each started once for a run, mended before each test."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from databases import KINDS, SERVERS, Database, MariaDB, PostgreSQL, SQLite
from etcdserver import PROGRAM, Etcd
from mirrors import Mirror
from processes import Process
from tegaserver import TegaServer

_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def place() -> Iterator[Path]:
    """A directory that other accounts reach too, which pytest's own are not."""
    path = Path(tempfile.mkdtemp(prefix="tega-sentinel-"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


def _run(service: Process) -> Iterator[Process]:
    service.start()
    yield service
    service.end()


def _directory(place: Path, name: str) -> Path:
    (place / name).mkdir()
    return place / name


@pytest.fixture(scope="session")
def one_etcd(place: Path) -> Iterator[Process]:
    if PROGRAM is None:
        pytest.skip("etcd is not installed: scripts/setup-system does it")
    yield from _run(Etcd(_directory(place, "etcd")))


@pytest.fixture(scope="session")
def one_mariadb(place: Path) -> Iterator[Process]:
    if not MariaDB.is_installed():
        pytest.skip("MariaDB is not installed: scripts/setup-system does it")
    yield from _run(MariaDB(_directory(place, "mariadb")))


@pytest.fixture(scope="session")
def one_postgresql(place: Path) -> Iterator[Process]:
    if not PostgreSQL.is_installed():
        pytest.skip("PostgreSQL is not installed: scripts/setup-system does it")
    yield from _run(PostgreSQL(_directory(place, "postgresql")))


@pytest.fixture
def etcd(one_etcd: Process) -> Etcd:
    """An etcd that runs, and holds nothing."""
    assert isinstance(one_etcd, Etcd)
    one_etcd.mend()
    one_etcd.delete_below("/")
    return one_etcd


def _fresh(server: Process) -> Database:
    assert isinstance(server, (MariaDB, PostgreSQL))
    server.mend()
    return server.database(f"t{next(_NUMBERS)}")


@pytest.fixture
def mariadb(one_mariadb: Process) -> Database:
    """An empty database of a MariaDB that runs."""
    return _fresh(one_mariadb)


@pytest.fixture
def postgresql(one_postgresql: Process) -> Database:
    """An empty database of a PostgreSQL that runs."""
    return _fresh(one_postgresql)


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    """A SQLite file to be."""
    return SQLite(tmp_path / "mirror.db")


@pytest.fixture(params=KINDS)
def database(request: pytest.FixtureRequest) -> Database:
    """Each kind of database in turn."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Database)
    return found


@pytest.fixture(params=SERVERS)
def server_database(request: pytest.FixtureRequest) -> Database:
    """Each kind of database that is a server."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Database)
    return found


@pytest.fixture
def served(tmp_path: Path) -> Iterator[TegaServer]:
    """A tega server that runs, and holds nothing."""
    (tmp_path / "served").mkdir()
    server = TegaServer(tmp_path / "served")
    server.start()
    yield server
    server.end()


@pytest.fixture(
    params=["sqlite", *[pytest.param(name, marks=pytest.mark.long) for name in SERVERS]]
)
def one_database(request: pytest.FixtureRequest) -> Database:
    """Where the kind of database should not matter: SQLite, and in a long run each kind."""
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Database)
    return found


@contextmanager
def mirrored(etcd: Etcd, database: Database, directory: Path) -> Iterator[Mirror]:
    made = Mirror(etcd, database, directory)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def mirror(etcd: Etcd, database: Database, tmp_path: Path) -> Iterator[Mirror]:
    """Things, from etcd into each kind of database; nothing runs yet."""
    with mirrored(etcd, database, tmp_path) as made:
        yield made


@pytest.fixture
def one_mirror(etcd: Etcd, one_database: Database, tmp_path: Path) -> Iterator[Mirror]:
    """The same where the kind should not matter."""
    with mirrored(etcd, one_database, tmp_path) as made:
        yield made


@pytest.fixture
def server_mirror(etcd: Etcd, server_database: Database, tmp_path: Path) -> Iterator[Mirror]:
    """The same with each kind of database that is a server."""
    with mirrored(etcd, server_database, tmp_path) as made:
        yield made


@pytest.fixture
def mirror_of_sqlite(etcd: Etcd, sqlite: Database, tmp_path: Path) -> Iterator[Mirror]:
    """The same with a SQLite file."""
    with mirrored(etcd, sqlite, tmp_path) as made:
        yield made
