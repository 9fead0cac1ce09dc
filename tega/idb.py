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
    "OPE", "SCOPE", "Database", "Match", "Subscriber", "Tx", "add_tega_id", "clear", "crud_batch",
    "get", "get_channels", "get_global_channels", "get_subscribe_forwarders", "get_subscribers",
    "get_tega_ids", "get_version", "idb_edges", "is_started", "loglist_for_sync", "old", "publish",
    "reload_log", "remove_tega_id", "rollback", "roots", "rpc", "save_snapshot", "start", "stop",
    "subscribe", "tx", "unsubscribe", "unsubscribe_all", "use",
]  # fmt: skip


class _Default:
    """The default database, and how to open it again."""

    database: Database | None = None
    arguments: tuple[str | Path, str, int] | None = None


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


def use(database: Database | None) -> None:
    """Let a database that is open be the default one, as a server does for its plugins.

    :param database: None: there is no default one any more
    """
    _Default.database = database
    _Default.arguments = None


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
    if arguments is None:
        raise Refused("the default database is a server's: only the server can open it again")
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


def subscribe(
    subscriber: Subscriber, path: str, scope: SCOPE = SCOPE.LOCAL, regex_flag: bool = False
) -> None:
    """See `Database.subscribe`."""
    _db().subscribe(subscriber, path, scope, regex_flag)


def unsubscribe(subscriber: Subscriber, path: str, regex_flag: bool = False) -> None:
    """See `Database.unsubscribe`."""
    _db().unsubscribe(subscriber, path, regex_flag)


def unsubscribe_all(subscriber: Subscriber) -> None:
    """See `Database.unsubscribe_all`."""
    _db().unsubscribe_all(subscriber)


def publish(
    channel: str, tega_id: str, message: Any, subscriber: Subscriber | None = None
) -> None:
    """See `Database.publish`."""
    _db().publish(channel, tega_id, message, subscriber)


def rpc(
    path: str, args: Iterable[Any] | None = None, kwargs: Mapping[str, Any] | None = None
) -> Any:
    """See `Database.rpc`."""
    return _db().rpc(path, args, kwargs)


def add_tega_id(tega_id: str) -> None:
    """See `Database.add_tega_id`."""
    _db().add_tega_id(tega_id)


def remove_tega_id(tega_id: str) -> None:
    """See `Database.remove_tega_id`."""
    _db().remove_tega_id(tega_id)


def get_tega_ids() -> list[str]:
    """See `Database.get_tega_ids`."""
    return _db().get_tega_ids()


def get_channels() -> dict[str, list[str]]:
    """See `Database.get_channels`."""
    return _db().get_channels()


def get_subscribers() -> dict[str, list[str]]:
    """See `Database.get_subscribers`."""
    return _db().get_subscribers()


def get_global_channels() -> list[tuple[str, str]]:
    """See `Database.get_global_channels`."""
    return _db().get_global_channels()


def get_subscribe_forwarders() -> list[str]:
    """See `Database.get_subscribe_forwarders`."""
    return _db().get_subscribe_forwarders()
