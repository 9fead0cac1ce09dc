"""A database as Python programs hold it: documents in, documents out."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

from tega import database, paths, strictjson
from tega.database import new_life
from tega.errors import Malformed, NoSession, NoSuchTransaction, NotFound
from tega.leaf import Node
from tega.log.file import FileLog
from tega.store import encode, match
from tega.store.commit import Operation, Rollback, Transaction, make_delete, make_put
from tega.store.edges import edges
from tega.store.history import Result
from tega.store.node import ABSENT, Content
from tega.subscriber import Subscriber
from tega.tree import make_node
from tega.util import deserialize


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


class Database(database.Database):
    """A database in this process.

    >>> db = Database.open("./var", "agent-1")
    >>> with db.tx() as t:
    ...     t.put({"address": "10.0.0.1"}, path="inventory.ne1")
    >>> db.get("inventory.ne1").address
    '10.0.0.1'
    """

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
        return Tx(self, paths.check_tega_id(tega_id))

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
        return _document(found.content, found.version, keys)

    def _get_matching(self, pattern: str, version: int | None) -> dict[str, Match]:
        if version is not None:
            raise Malformed("version: a regex path spans roots, which each count their own")
        return {
            paths.dotted(one.path): Match(
                one.groups, _document(one.content, one.version, one.path)
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
        return [list(edge) for edge in edges(self.state, root_oid, old_roots)]

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


class Tx:
    """One transaction."""

    def __init__(self, owner: Database, tega_id: str) -> None:
        self._database = owner
        self._tega_id = tega_id
        self._operations: list[Operation] = []
        self._result: Result | None = None
        self._open = True
        self._txid: str | None = None

    @property
    def txid(self) -> str:
        """Its id. One that was asked for before the commit is kept with it."""
        if self._txid is None:
            self._txid = uuid.uuid4().hex
        return self._txid

    @property
    def result(self) -> Result:
        """What the commit made.

        :raises KeyError: before the commit
        """
        if self._result is None:
            raise NoSuchTransaction(f"transaction {self.txid} is not committed")
        return self._result

    def put(
        self,
        instance: Any,
        tega_id: str | None = None,
        version: int | None = None,
        deepcopy: bool = True,
        path: str | None = None,
        ephemeral: bool = False,
    ) -> None:
        """Replace the subtree at a path.

        :param instance: a `Cont` or leaf, which knows its path, or with `path` any JSON value
        :param version: the version that the node has to have; -1: it must not exist yet
        :param deepcopy: accepted for old programs; what is put is always copied
        :param ephemeral: the node is to go with the session of `tega_id`
        :raises ValueError: for what cannot be a path or value, or after the commit
        """
        self._check_open()
        if ephemeral or (isinstance(instance, Node) and instance.is_ephemeral_()):
            raise NoSession(f"{tega_id or self._tega_id!r} has no live session")
        if path is not None:
            keys = paths.parse(path)
        elif isinstance(instance, Node):
            keys = paths.check(instance.qname_())
        else:
            raise Malformed(f"a {type(instance).__name__} does not know its path: give path=")
        self._operations.append(self._make_put(keys, instance, version, tega_id))

    def _make_put(
        self, keys: paths.Path, instance: Any, version: int | None, tega_id: str | None
    ) -> Operation:
        depth = self._database.max_depth
        known = isinstance(instance, Node)
        try:
            value = instance.serialize_() if known else instance
            return make_put(keys, value, version, tega_id, depth)
        except Malformed:
            # Functions, integer keys, subclasses: a document knows what to make of them.
            made = None if known else make_node(instance)
            if made is None:
                raise
            return make_put(keys, made.serialize_(), version, tega_id, depth)

    def delete(self, path: Any, tega_id: str | None = None, version: int | None = None) -> None:
        """Remove the subtree at a path, and parents that this empties.

        :param path: dotted, or a `Cont` or leaf that knows it
        :param version: the version that the node has to have
        """
        self._check_open()
        keys = paths.check(path.qname_()) if isinstance(path, Node) else paths.parse(path)
        self._operations.append(
            make_delete(keys, version, tega_id, self._database.max_depth)
        )

    def get_candidate(self) -> dict[str, Any]:
        """The roots that the transaction touches, as its commit would leave them.

        :returns: by name a `Cont` or leaf; None for a root that would be deleted
        """
        return {
            name: None if content is ABSENT else _document(content, version, (name,))
            for name, version, content in self._database.candidate(self._operations)
        }

    def commit(self, write_log: bool = True) -> Result:
        """Apply all of it, or nothing.

        :param write_log: accepted for old programs; every change is logged
        :raises ValueError: for a collision, or a leaf in the way
        :raises KeyError: for a delete of what is not there
        """
        self._check_open()
        self._open = False
        self._result = self._database.commit(
            Transaction(tuple(self._operations), self._tega_id, self._txid)
        )
        return self._result

    def cancel(self) -> None:
        """Forget it."""
        self._open = False

    def _check_open(self) -> None:
        if not self._open:
            raise Malformed(f"transaction {self.txid} has ended: begin a new one")

    def __enter__(self) -> Tx:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.cancel()
        elif self._open:
            self.commit()


def _document(content: Content, version: int, path: paths.Path) -> Any:
    parent = path[-2] if len(path) > 1 else None
    form = b"".join(encode.internal(content, version, path[-1], parent))
    return deserialize(strictjson.loads(form), paths.dotted(path))
