"""A database as Python programs hold it: documents in, documents out."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from tega import database, paths, strictjson
from tega.callbacks import LocalWatcher
from tega.database import new_life
from tega.errors import Malformed, NotFound, Refused
from tega.leaf import plain
from tega.log.file import FileLog
from tega.rpc import Functions, function_at, owner_gone
from tega.store import match
from tega.store.commit import Rollback
from tega.store.edges import edges
from tega.store.history import Result
from tega.store.node import Content
from tega.subscriber import SCOPE, Subscriber
from tega.tx import Tx, document, with_functions
from tega.watcher import Publication

__all__ = ["OPE", "Caller", "Database", "Match", "Tx"]


class OPE(str, Enum):
    """What a change did."""

    PUT = "PUT"
    DELETE = "DELETE"
    ROLLBACK = "ROLLBACK"


class Match(NamedTuple):
    """What a regex path found at one path.

    :ivar groups: a list for each level whose pattern has groups
    :ivar instance: the `Cont` or leaf there
    """

    groups: list[list[str | None]]
    instance: Any


class Caller(Protocol):
    """Calls functions, those of connected sessions too."""

    async def call(
        self, path: str, args: list[Any], kwargs: dict[str, Any], caller: str
    ) -> Any:
        """On the event loop."""

    def wait(self, path: str, args: list[Any], kwargs: dict[str, Any], caller: str) -> Any:
        """In any other thread."""


class Database(database.Database):
    """A database in this process.

    >>> db = Database.open("./var", "agent-1")
    >>> with db.tx() as t:
    ...     t.put({"address": "10.0.0.1"}, path="inventory.ne1")
    >>> db.get("inventory.ne1").address
    '10.0.0.1'
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: The functions that this process runs.
        self.functions = Functions()
        #: Calls functions of others, where there are others; set by a server.
        self.caller: Caller | None = None
        #: Gives the connected peers that subscriptions are forwarded to: a server's.
        self.forwarders: Callable[[], list[str]] = list
        self._subscribers: dict[Subscriber, LocalWatcher] = {}

    @classmethod
    def open(cls, data_dir: str | Path, tega_id: str, maxlen: int = 10) -> Database:
        """Open the commit log of `tega_id` in a directory, made if missing.

        :param maxlen: old versions that stay readable, for each root
        :raises LogError: where the log cannot be opened or does not check
        """
        directory = Path(data_dir)
        return cls(FileLog(directory, paths.check_tega_id(tega_id), new_life), tega_id, maxlen)

    # -- changing -----------------------------------------------------------------------------

    def tx(self, tega_id: str | None = None, subscriber: Subscriber | None = None) -> Tx:
        """A transaction, as a context manager: it commits on a clean exit, else nothing happens.

        :param tega_id: who makes it; by default the subscriber, or this database
        """
        if tega_id is None:
            tega_id = subscriber.tega_id if subscriber is not None else self.tega_id
        return Tx(self, self.functions, paths.check_tega_id(tega_id))

    def rollback(
        self,
        tega_id: str,
        root_oid: str,
        backto: int,
        subscriber: Subscriber | None = None,
        write_log: bool = True,
    ) -> Result:
        """Make the content of an old version of a root its newest.

        :param backto: a version, or, negative, so many versions back
        :param write_log: accepted for old programs; every change is logged
        :raises KeyError: where there is no such root or version
        """
        return self.commit(Rollback(root_oid, backto, paths.check_tega_id(tega_id)))

    def crud_batch(
        self, notifications: Iterable[Mapping[str, Any]], subscriber: Subscriber | None = None
    ) -> Result:
        """Apply changes as one transaction.

        :param notifications: ``{"ope": "PUT" or "DELETE", "path", "instance", "tega_id"}``
        :raises ValueError: for a malformed change, a collision, a leaf in the way
        :raises KeyError: for a DELETE of what is not there
        """
        with self.tx(subscriber=subscriber) as tx:
            for change in notifications:
                ope, path, tega_id = change.get("ope"), change.get("path"), change.get("tega_id")
                if not isinstance(path, str):
                    raise Malformed(f"a change without a path: {str(dict(change))[:120]}")
                if ope == OPE.PUT and "instance" in change:
                    tx.put(change["instance"], tega_id=tega_id, path=path)
                elif ope == OPE.DELETE:
                    tx.delete(path, tega_id=tega_id)
                else:
                    raise Malformed(
                        f"a change of {path} with ope {ope!r}: it is PUT, with an instance, or "
                        "DELETE"
                    )
        return tx.result

    def save_snapshot(self, tega_id: str) -> None:
        """Write a snapshot, so that the next start is quick.

        :param tega_id: who asks for it
        """
        paths.check_tega_id(tega_id)
        self.snapshot()

    # -- taking part --------------------------------------------------------------------------

    def add_tega_id(self, tega_id: str) -> None:
        """Let a tega id be live, so that it can have ephemeral nodes."""
        self.join(paths.check_tega_id(tega_id))

    def remove_tega_id(self, tega_id: str) -> None:
        """Let a tega id be live no more: its ephemeral nodes and its functions go."""
        self.functions.drop(tega_id)
        pending = self.leave(tega_id)
        if not pending.settled:
            self.flush()
        pending.result()

    def get_tega_ids(self) -> list[str]:
        """The live tega ids."""
        return self.live_ids()

    def enter(self, subscriber: Subscriber) -> None:
        """Let a subscriber take part: its tega id is live, and its ``on_init`` is called.

        :raises Refused: where another one has the same tega id
        """
        if subscriber not in self._subscribers:
            if any(other.tega_id == subscriber.tega_id for other in self._subscribers):
                raise Refused(f"another subscriber or plugin is called {subscriber.tega_id}")
            self.join(subscriber.tega_id)
            watcher = LocalWatcher(subscriber, self.hub, lambda: self.state)
            self._subscribers[subscriber] = watcher
            watcher.begin()

    def exit(self, subscriber: Subscriber) -> None:
        """Let a subscriber take part no more: it hears nothing, and what is its own goes."""
        watcher = self._subscribers.pop(subscriber, None)
        if watcher is not None:
            self.hub.unsubscribe_all(watcher)
            watcher.end()
            self.remove_tega_id(subscriber.tega_id)

    def subscribe(
        self,
        subscriber: Subscriber,
        path: str,
        scope: SCOPE = SCOPE.LOCAL,
        regex_flag: bool = False,
    ) -> None:
        """Let a subscriber hear of changes at, below and above a path, and of its messages.

        :param path: dotted, or with `regex_flag` one RE2 pattern a level, split at ``\\.``
        """
        self.enter(subscriber)
        self.hub.subscribe(self._subscribers[subscriber], path, scope, regex_flag)

    def unsubscribe(self, subscriber: Subscriber, path: str, regex_flag: bool = False) -> None:
        """Let a subscriber hear of a path or pattern no more."""
        if subscriber in self._subscribers:
            self.hub.unsubscribe(self._subscribers[subscriber], path, regex_flag)

    def unsubscribe_all(self, subscriber: Subscriber) -> None:
        """Let a subscriber hear of nothing more; its tega id stays live."""
        if subscriber in self._subscribers:
            self.hub.unsubscribe_all(self._subscribers[subscriber])

    def publish(
        self, channel: str, tega_id: str, message: Any, subscriber: Subscriber | None = None
    ) -> None:
        """Tell all that subscribe to a channel; none is no error.

        :param message: any JSON value
        :param subscriber: who publishes, and so is not told
        """
        body = strictjson.dumps({"message": plain(message)})
        publication = Publication(paths.parse(channel), paths.check_tega_id(tega_id), body)
        sender = self._subscribers.get(subscriber) if subscriber is not None else None

        def tell() -> None:
            self.hub.tell(publication, sender)

        self.hub.run(tell)

    def get_channels(self) -> dict[str, list[str]]:
        """The tega ids that subscribe, by path or pattern."""
        return self.hub.channels()

    def get_subscribers(self) -> dict[str, list[str]]:
        """The paths and patterns that are subscribed to, by tega id."""
        return self.hub.subscribers()

    def get_global_channels(self) -> list[tuple[str, str]]:
        """The paths and patterns of global scope, with that scope."""
        return self.hub.global_channels()

    def get_subscribe_forwarders(self) -> list[str]:
        """The connected peers that subscriptions are forwarded to."""
        return self.forwarders()

    # -- calling ------------------------------------------------------------------------------

    def rpc(
        self,
        path: str,
        args: Iterable[Any] | None = None,
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Call the function at a path, and wait for its result.

        :raises NoSuchFunction: where there is none
        :raises OwnerGone: where it is not of this process, nor of anybody connected
        :raises Refused: on a server's event loop, which the call would wait for; plugins await
            `PlugIn.rpc`
        """
        given = list(args or ()), dict(kwargs or {})
        if self.caller is not None:
            return self.caller.wait(path, *given, self.tega_id)
        keys = paths.parse(path)
        leaf, function = function_at(self.state, keys)
        func = self.functions.find(keys, leaf)
        if func is None:
            raise owner_gone(keys, function)
        result = func(*given[0], **given[1])
        return asyncio.run(_awaited(result)) if inspect.isawaitable(result) else result

    async def call(self, path: str, args: Any, kwargs: Any, caller: str) -> Any:
        """Call the function at a path.

        :param caller: the tega id of who asks
        """
        if self.caller is None:
            return self.rpc(path, args, kwargs)
        return await self.caller.call(path, list(args), dict(kwargs), caller)

    # -- reading ------------------------------------------------------------------------------

    def get(self, path: str, version: int | None = None, regex_flag: bool = False) -> Any:
        """What stands at a path.

        :param version: of the root; None is the newest, a negative one counts back
        :param regex_flag: `path` is a regex path: one RE2 pattern a level, split at ``\\.``
        :returns: a `Cont` or leaf of its own, None for null; with `regex_flag` a dict from path to
            `Match`
        :raises KeyError: where nothing stands there, or that version is not kept
        """
        if regex_flag:
            return self._get_matching(path, version)
        keys = paths.parse(path)
        found = self.find(keys, version)
        return self._document(found.content, found.version, keys, found.ephemeral)

    def _document(
        self, content: Content, version: int, path: paths.Path, ephemeral: bool = False
    ) -> Any:
        made = document(content, version, path, ephemeral)
        return with_functions(made, path, self.functions) if self.functions else made

    def _get_matching(self, pattern: str, version: int | None) -> dict[str, Match]:
        if version is not None:
            raise Malformed("version: a regex path spans roots, which each count their own")
        return {
            paths.dotted(one.path): Match(
                one.groups, self._document(one.content, one.version, one.path, one.ephemeral)
            )
            for one in match.matches(self.state, match.compile_pattern(pattern))
            if one is not None
        }

    def get_version(self, path: str) -> int:
        """The version of the node at a path: that of its last change, or of one below it.

        :raises KeyError: where nothing stands there
        """
        return self.find(paths.parse(path)).version

    def roots(self) -> dict[str, int]:
        """Every root and its newest version."""
        return {root.name: root.version for root in self.state.live_roots()}

    def old(self) -> list[dict[str, list[int]]]:
        """Every root with its readable old versions, oldest first; deleted roots too."""
        state = self.state
        return [{name: state.roots[name].old_versions()} for name in sorted(state.roots)]

    def idb_edges(self, root_oid: str | None = None, old_roots: bool = False) -> list[list[str]]:
        """Parents and children as pairs of ``PATH(VERSION)``, for drawing.

        :raises KeyError: where there is no such root
        """
        if root_oid is not None and root_oid not in self.state.roots:
            raise NotFound(f"no root {paths.dotted((root_oid,))}")
        found = edges(self.state, root_oid, old_roots)
        return [list(edge) for edge in found if edge is not None]

    def loglist_for_sync(self, root_oid: str, version: int) -> list[list[dict[str, Any]]]:
        """The commits that made later versions of a root, oldest first, as far as the log has them.

        :returns: for each commit its changes in that root: ``{"ope", "path", "tega_id",
            "instance"}``; a rollback is one change, with ``backto`` and the instance None
        """
        listed = []
        for logged in self.commits_after(root_oid, version):
            if logged.rolled_back is not None:
                name, back = logged.rolled_back
                listed.append(
                    [
                        {
                            "ope": OPE.ROLLBACK.value,
                            "path": paths.dotted((name,)),
                            "tega_id": logged.extras.tega_id,
                            "instance": None,
                            "backto": -back,
                        }
                    ]
                )
                continue
            listed.append(
                [
                    {
                        "ope": record.ope,
                        "path": paths.dotted(paths.parse(record.path)),
                        "tega_id": record.tega_id,
                        "instance": record.instance,
                    }
                    for record in logged.records
                    if paths.parse(record.path)[0] == root_oid
                ]
            )
        return listed


async def _awaited(result: Awaitable[Any]) -> Any:
    return await result
