"""Databases in the process of their user: one durable put a transaction."""

from __future__ import annotations

import importlib
import json
import os
import sqlite3
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

from tegabench import values
from tegabench.bench import Bench
from tegabench.process import BenchError, in_child
from tegabench.result import Contestant, Sample, Workload
from tegabench.systems.base import KEYS, Role

#: Operations of one run at most.
_MOST = 1_000_000


class Store(ABC):
    """A database in this process."""

    title: ClassVar[str]
    role: ClassVar[Role] = "peer"
    #: The module that it takes.
    module: ClassVar[str]

    @abstractmethod
    def __init__(self, directory: Path) -> None:
        """Open or make the database in this directory."""

    @abstractmethod
    def put(self, key: str, document: dict[str, Any]) -> None:
        """One durable put as a transaction of its own."""

    @abstractmethod
    def get(self, key: str) -> Any:
        """The document at a key."""

    @abstractmethod
    def close(self) -> None:
        """Close it, so that it can be opened again."""


class TegaIdb(Store):
    """tega embedded."""

    title = "tega.idb"
    role = "tega"
    module = "tega.idb"

    def __init__(self, directory: Path) -> None:
        self._idb: Any = importlib.import_module("tega.idb")
        self._idb.start(str(directory), "bench")

    def put(self, key: str, document: dict[str, Any]) -> None:
        with self._idb.tx() as transaction:
            transaction.put(document, path=f"bench.{key}")

    def get(self, key: str) -> Any:
        return self._idb.get(f"bench.{key}")

    def close(self) -> None:
        self._idb.stop()


class Sqlite(Store):
    """SQLite with a write-ahead log, synced at each commit."""

    title = "SQLite"
    module = "sqlite3"

    def __init__(self, directory: Path) -> None:
        self._db = sqlite3.connect(directory / "bench.sqlite", isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute("CREATE TABLE IF NOT EXISTS doc (key TEXT PRIMARY KEY, document TEXT)")

    def put(self, key: str, document: dict[str, Any]) -> None:
        self._db.execute("INSERT OR REPLACE INTO doc VALUES (?, ?)", (key, json.dumps(document)))

    def get(self, key: str) -> Any:
        row = self._db.execute("SELECT document FROM doc WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0])

    def close(self) -> None:
        self._db.close()


class Zodb(Store):
    """ZODB on a file storage."""

    title = "ZODB"
    module = "ZODB"

    def __init__(self, directory: Path) -> None:
        self._db: Any = importlib.import_module("ZODB").DB(str(directory / "bench.fs"))
        self._transaction: Any = importlib.import_module("transaction")
        self._connection = self._db.open()
        root = self._connection.root()
        if "bench" not in root:
            root["bench"] = importlib.import_module("BTrees.OOBTree").OOBTree()
            self._transaction.commit()
        self._tree = root["bench"]

    def put(self, key: str, document: dict[str, Any]) -> None:
        self._tree[key] = document
        self._transaction.commit()

    def get(self, key: str) -> Any:
        return self._tree[key]

    def close(self) -> None:
        self._connection.close()
        self._db.close()


class TinyDb(Store):
    """TinyDB, which writes the whole file at each change."""

    title = "TinyDB"
    module = "tinydb"

    def __init__(self, directory: Path) -> None:
        module: Any = importlib.import_module("tinydb")
        self._document: Any = importlib.import_module("tinydb.table").Document
        self._db = module.TinyDB(directory / "bench.json")

    def put(self, key: str, document: dict[str, Any]) -> None:
        self._db.upsert(self._document(document, doc_id=int(key[1:])))

    def get(self, key: str) -> Any:
        return self._db.get(doc_id=int(key[1:]))

    def close(self) -> None:
        self._db.close()


STORES: tuple[type[Store], ...] = (TegaIdb, Sqlite, Zodb, TinyDb)


def embedded(bench: Bench) -> Iterator[Workload]:
    """One durable put a transaction, in the process of the user."""
    seconds = bench.sizes.seconds

    def floor() -> Sample:
        return in_child(bench.cores.server, append_and_sync, bench.place("sync"), seconds)

    contestants = [Contestant("append and fdatasync", "limit", floor)]
    for store in STORES:
        if not _importable(store.module):
            bench.note(f"{store.title} left out: {store.module} cannot be imported")
            continue

        def measure(store: type[Store] = store) -> Sample:
            place, generation = bench.place(store.module), bench.generation()
            return in_child(bench.cores.server, put_in_turn, store, place, seconds, generation)

        contestants.append(Contestant(store.title, store.role, measure))
    title = "embedded, one durable put a transaction"
    yield Workload(title, "op/s", contestants, "append and fdatasync")


def _importable(module: str) -> bool:
    parent = module.partition(".")[0]
    return find_spec(parent) is not None and find_spec(module) is not None


def put_in_turn(store: type[Store], place: Path, seconds: float, generation: int) -> Sample:
    """Put new documents at a few keys; then open the database again and look them up."""
    template = json.loads(values.document(values.tag(0, 0, 0)))
    database = store(place)
    written: dict[str, str] = {}

    def put(turn: int, serial: int) -> None:
        key, tag = f"k{serial % KEYS}", values.tag(generation, turn, serial).decode()
        database.put(key, {**template, "tag": tag})
        written[key] = tag

    timed(partial(put, 0), seconds / 5)  # until caches and pools are there
    count, sample = timed(partial(put, 1), seconds)
    database.close()
    database = store(place)
    for key, tag in written.items():
        if database.get(key)["tag"] != tag:
            raise BenchError(f"{store.title} lost an acknowledged write at {key}")
    database.close()
    return Sample(sample.value, p50=sample.p50, p99=sample.p99, worst=sample.worst, checked=count)


def append_and_sync(place: Path, seconds: float) -> Sample:
    """The floor under every durable write: append 200 bytes and ``fdatasync``."""
    file = os.open(place / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def put(serial: int) -> None:
        os.write(file, b"%0199d\n" % serial)
        os.fdatasync(file)

    try:
        count, sample = timed(put, seconds)
    finally:
        os.close(file)
    if (place / "log").stat().st_size != 200 * count:
        raise BenchError("the log has not the length that was written")
    return sample


def timed(operation: Callable[[int], None], seconds: float) -> tuple[int, Sample]:
    """Do an operation again and again.

    :returns: how many times, and the rate with its latencies
    """
    clock = time.perf_counter
    latencies: list[float] = []
    start = before = clock()
    end = start + seconds
    while before < end and len(latencies) < _MOST:
        operation(len(latencies))
        after = clock()
        latencies.append(after - before)
        before = after
    count = len(latencies)
    latencies.sort()
    return count, Sample(
        count / (before - start),
        p50=latencies[count // 2],
        p99=latencies[int(count * 0.99)],
        worst=latencies[-1],
    )
