"""Embedded use: functions on the one default database of a process.

>>> from tega import idb
>>> idb.start("./var", "agent-1")
>>> with idb.tx() as t:
...     t.put({"address": "10.0.0.1"}, path="inventory.ne1")
>>> idb.get("inventory.ne1.address")
'10.0.0.1'
>>> idb.stop()

Every function does what the method of that name of `Database` does; use that class for several
databases in one process. All may be called from any thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tega.embedded import OPE, Database, Match, Tx
from tega.errors import Closed, Refused
from tega.store.history import Result
from tega.subscriber import SCOPE, Subscriber

__all__ = [
    "OPE", "SCOPE", "Database", "Match", "Subscriber", "Tx", "clear", "crud_batch", "get",
    "get_version", "idb_edges", "is_started", "loglist_for_sync", "old", "reload_log", "rollback",
    "roots", "save_snapshot", "start", "stop", "tx",
]  # fmt: skip


class _Default:
    """The default database, and how to open it again."""

    database: Database | None = None
    arguments: tuple[str | Path, str, int] = ("", "", 0)


def _db() -> Database:
    if _Default.database is None:
        raise Closed("no database is open: call tega.idb.start(data_dir, tega_id) first")
    return _Default.database


def start(data_dir: str | Path, tega_id: str, maxlen: int = 10) -> None:
    """Open the default database.

    :param data_dir: directory of its commit log, made if missing
    :param tega_id: the identity of this process
    :param maxlen: old versions that stay readable, for each root
    :raises ValueError: where one is open already
    :raises LogError: where the log cannot be opened or does not check
    """
    if _Default.database is not None:
        raise Refused("the default database is open already: call tega.idb.stop() first")
    _Default.database = Database.open(data_dir, tega_id, maxlen)
    _Default.arguments = (data_dir, tega_id, maxlen)


def stop() -> None:
    """Close the default database; nothing where none is open."""
    if _Default.database is not None:
        _Default.database.close()
        _Default.database = None


def is_started() -> bool:
    """Whether the default database is open."""
    return _Default.database is not None


def reload_log() -> None:
    """Close the default database and read it from its log again."""
    _db()
    arguments = _Default.arguments
    stop()
    start(*arguments)


def clear() -> None:
    """Forget everything, and begin a new life."""
    _db().clear()


def tx(tega_id: str | None = None, subscriber: Subscriber | None = None) -> Tx:
    """See `Database.tx`."""
    return _db().tx(tega_id, subscriber)


def get(path: str, version: int | None = None, regex_flag: bool = False) -> Any:
    """See `Database.get`."""
    return _db().get(path, version, regex_flag)


def get_version(path: str) -> int:
    """See `Database.get_version`."""
    return _db().get_version(path)


def roots() -> dict[str, int]:
    """See `Database.roots`."""
    return _db().roots()


def old() -> list[dict[str, list[int]]]:
    """See `Database.old`."""
    return _db().old()


def rollback(
    tega_id: str,
    root_oid: str,
    backto: int,
    subscriber: Subscriber | None = None,
    write_log: bool = True,
) -> Result:
    """See `Database.rollback`."""
    return _db().rollback(tega_id, root_oid, backto, subscriber, write_log)


def crud_batch(
    notifications: Iterable[Mapping[str, Any]], subscriber: Subscriber | None = None
) -> Result:
    """See `Database.crud_batch`."""
    return _db().crud_batch(notifications, subscriber)


def save_snapshot(tega_id: str) -> None:
    """See `Database.save_snapshot`."""
    _db().save_snapshot(tega_id)


def loglist_for_sync(root_oid: str, version: int) -> list[list[dict[str, Any]]]:
    """See `Database.loglist_for_sync`."""
    return _db().loglist_for_sync(root_oid, version)


def idb_edges(root_oid: str | None = None, old_roots: bool = False) -> list[list[str]]:
    """See `Database.idb_edges`."""
    return _db().idb_edges(root_oid, old_roots)
