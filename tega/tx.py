"""One transaction of a program that has the database in its own process."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from tega import database, paths, strictjson
from tega.errors import Malformed, NoSuchTransaction
from tega.leaf import RPC, Func, Leaf, Node
from tega.rpc import Functions
from tega.store import encode
from tega.store.commit import Operation, Transaction, make_delete, make_put
from tega.store.history import Result
from tega.store.node import ABSENT, Content
from tega.tree import Cont, make_node
from tega.util import deserialize


class Tx:
    """One transaction.

    As a context manager it commits on a clean exit, and forgets everything on an exception; with
    ``async with`` a slow disk does not hold up the event loop.

    :param functions: takes the functions that are put
    """

    def __init__(self, owner: database.Database, functions: Functions, tega_id: str) -> None:
        self._database = owner
        self._functions = functions
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

        What is marked as ephemeral inside a document is put as such, beside the rest.

        :param instance: a `Cont` or leaf, which knows its path, or with `path` any JSON value; a
            `Func` in it can be called from then on
        :param version: the version that the node has to have; -1: it must not exist yet
        :param deepcopy: accepted for old programs; what is put is always copied
        :param ephemeral: the node is to go with the session of `tega_id`
        :raises ValueError: for what cannot be a path or value, or after the commit
        """
        self._check_open()
        if path is not None:
            keys = paths.parse(path)
        elif isinstance(instance, Node):
            keys = paths.check(instance.qname_())
        else:
            raise Malformed(f"a {type(instance).__name__} does not know its path: give path=")
        depth = self._database.max_depth
        if not isinstance(instance, Node):
            try:
                made = make_put(keys, instance, version, tega_id, depth, ephemeral)
                self._operations.append(made)
                return
            except Malformed:
                # Functions, integer keys, subclasses: a document knows what to make of them.
                instance = make_node(instance)
                if instance is None:
                    raise
        for below, func in _functions_in(instance, keys):
            self._functions.add(below, func)
        ephemeral = ephemeral or instance.is_ephemeral_()
        marked = [] if ephemeral else list(_marked_in(instance, keys))
        value = instance.serialize_(serialize_ephemeral=ephemeral)
        for below, _ in marked:
            _prune(value, below[len(keys) :])
        self._operations.append(make_put(keys, value, version, tega_id, depth, ephemeral))
        for below, node in marked:
            self._operations.append(
                make_put(below, node.serialize_(), None, tega_id, depth, ephemeral=True)
            )

    def delete(self, path: Any, tega_id: str | None = None, version: int | None = None) -> None:
        """Remove the subtree at a path, and parents that this empties.

        :param path: dotted, or a `Cont` or leaf that knows it
        :param version: the version that the node has to have
        """
        self._check_open()
        keys = paths.check(path.qname_()) if isinstance(path, Node) else paths.parse(path)
        self._operations.append(make_delete(keys, version, tega_id, self._database.max_depth))

    def get_candidate(self) -> dict[str, Any]:
        """The roots that the transaction touches, as its commit would leave them.

        :returns: by name a `Cont` or leaf; None for a root that would be deleted
        """
        return {
            name: None if content is ABSENT else document(content, version, (name,))
            for name, version, content in self._database.candidate(
                self._operations, self._tega_id
            )
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

    async def __aenter__(self) -> Tx:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None:
            self.cancel()
        elif self._open:
            await asyncio.get_running_loop().run_in_executor(None, self.commit)


def document(
    content: Content, version: int, path: paths.Path, ephemeral: bool = False
) -> Any:
    """A `Cont` or leaf of the caller's own; None for null."""
    parent = path[-2] if len(path) > 1 else None
    form = b"".join(encode.internal(content, version, path[-1], parent, ephemeral))
    return deserialize(strictjson.loads(form), paths.dotted(path))


def with_functions(made: Any, path: paths.Path, functions: Functions) -> Any:
    """A document with the functions of this process in it, instead of their names."""
    if isinstance(made, Cont):
        for key, child in list(made.items()):
            found = with_functions(child, (*path, key), functions)
            if found is not child:
                made[key] = found.func
                made[key].__dict__.update(_version=child._version, _ephemeral=child._ephemeral)
        return made
    if isinstance(made, Leaf) and isinstance(made, str) and made.startswith("%"):
        func = functions.find(path, str(made))
        if func is not None:
            leaf = RPC(func)
            leaf.__dict__.update({name: made.__dict__[name] for name in _PLACE})
            return leaf
    return made


_PLACE = ("_oid", "_parent", "_version", "_ephemeral")


def _functions_in(node: Node | None, path: paths.Path) -> Iterator[tuple[paths.Path, Func]]:
    if isinstance(node, RPC):
        yield path, node.func
    elif isinstance(node, Cont):
        for key, child in node.items():
            yield from _functions_in(child, (*path, key))


def _marked_in(node: Node | None, path: paths.Path) -> Iterator[tuple[paths.Path, Node]]:
    """The topmost nodes below that are marked as ephemeral."""
    if isinstance(node, Cont):
        for key, child in node.items():
            if child is not None and child._ephemeral:
                yield (*path, key), child
            else:
                yield from _marked_in(child, (*path, key))


def _prune(value: dict[str, Any], way: paths.Path) -> None:
    """Take out the containers on a way that hold nothing."""
    above = []
    for key in way[:-1]:
        if key not in value:
            return
        above.append((value, key))
        value = value[key]
    while above and not value:
        value, key = above.pop()
        del value[key]
