"""What is asked of a database, and what becomes of it.

A request (`Transaction` or `Rollback`) is staged against a `State`: checked, applied, given its
versions and its sequence number. The result is the next `State` and a frozen `Commit`, the one
thing that is logged, notified and sent to other servers.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, Literal, TypeAlias

import immutables
import msgspec

from tega.errors import Collision, Malformed, NotFound
from tega.paths import MAX_DEPTH, Path, check_key, check_tega_id, check_txid, dotted, wire
from tega.store import encode, node
from tega.store.history import Result, Root, State
from tega.store.node import ABSENT, Content, MaybeContent
from tega.strictjson import dumps

#: Expected version of a PUT that must find nothing there.
MUST_NOT_EXIST: Final = -1

#: Most bytes of a removed subtree that a DELETE's record holds; of a larger one it holds nothing.
_MAX_REMOVED: Final = 1 << 20


class Put(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Replace the subtree at `path` by fresh `content`, if it has the version `expected`."""

    path: Path
    content: Content
    expected: int | None = None
    tega_id: str | None = None


class Delete(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Remove the subtree at `path`, if it has the version `expected`."""

    path: Path
    expected: int | None = None
    tega_id: str | None = None


Operation: TypeAlias = Put | Delete


def make_put(
    path: Path,
    value: Any,
    expected: int | None = None,
    tega_id: str | None = None,
    max_depth: int = MAX_DEPTH,
) -> Put:
    """A checked `Put` of a JSON value, which is not kept.

    :param path: as `tega.paths` gives it: of checked keys
    :param tega_id: who puts, where that is not who commits
    :raises Malformed: for a depth, value, version or tega id that the data model does not allow
    """
    _check_depth(path, max_depth)
    if tega_id is not None:
        check_tega_id(tega_id)
    if expected is not None and expected < MUST_NOT_EXIST:
        raise Malformed(f"version {expected}: a put takes one from 0 up, or -1 for 'not there'")
    return Put(path, node.freeze(value, max_depth - len(path)), expected, tega_id)


def make_delete(
    path: Path, expected: int | None = None, tega_id: str | None = None, max_depth: int = MAX_DEPTH
) -> Delete:
    """A checked `Delete`; its parameters are as for `make_put`.

    :raises Malformed: for a depth, version or tega id that the data model does not allow
    """
    _check_depth(path, max_depth)
    if tega_id is not None:
        check_tega_id(tega_id)
    if expected is not None and expected < 0:
        raise Malformed(f"version {expected}: a delete takes a version from 0 up")
    return Delete(path, expected, tega_id)


def _check_depth(path: Path, max_depth: int) -> None:
    if not path:
        raise Malformed("empty path: name a root, such as 'inventory'")
    if len(path) > max_depth:
        raise Malformed(
            f"path of {len(path)} keys: the depth limit is {max_depth}", limit=max_depth
        )


class Transaction(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Operations to be applied all or none, in order."""

    operations: tuple[Operation, ...]
    tega_id: str
    txid: str | None = None


class Rollback(msgspec.Struct, frozen=True, gc=False, eq=False):
    """Make the content of an old version of a root its newest."""

    root: str
    backto: int
    tega_id: str
    txid: str | None = None


Request: TypeAlias = Transaction | Rollback


class Change(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One operation as it took place: what was put or removed, and the version it made.

    `record` is its JSON text, as the log and other servers have it.
    """

    ope: Literal["PUT", "DELETE"]
    path: Path
    tega_id: str
    content: Content
    version: int
    record: bytes


class Commit(msgspec.Struct, frozen=True, gc=False, eq=False):
    """One transaction as it took place.

    :ivar time: UTC, ISO 8601 with microseconds and ``Z``
    :ivar rolled_back: for a rollback its root, and how many versions back it went
    :ivar chains: the hash of each root touched, by name
    """

    seq: int
    time: str
    tega_id: str
    changes: tuple[Change, ...]
    versions: tuple[tuple[str, int], ...]
    chains: tuple[tuple[str, str], ...]
    txid: str | None = None
    rolled_back: tuple[str, int] | None = None

    def result(self) -> Result:
        """What the client is told."""
        return Result(self.seq, immutables.Map(self.versions))


def stage(state: State, request: Request, time: str, maxlen: int) -> tuple[State, Commit]:
    """Check and apply a request.

    :param time: the commit's time, ISO 8601
    :param maxlen: old versions to keep of each root
    :returns: the state after it, and the commit
    :raises TegaError: where the request is refused; nothing has changed then
    """
    check_tega_id(request.tega_id)
    if request.txid is not None:
        check_txid(request.txid)
    if isinstance(request, Rollback):
        return _stage_rollback(state, request, time, maxlen)
    draft = Draft(state, request.tega_id)
    draft.check_expected(request.operations)
    for operation in request.operations:
        draft.apply(operation)
    return draft.commit(time, maxlen, request.txid)


def candidate(state: State, operations: Iterable[Operation]) -> list[tuple[str, int, MaybeContent]]:
    """The roots that these operations touch as they would be: name, version, content.

    :raises TegaError: where an operation could not be applied
    """
    draft = Draft(state, "")
    for operation in operations:
        draft.apply(operation)
    return [(name, draft.versions[name], draft.contents[name]) for name in sorted(draft.contents)]


def _stage_rollback(
    state: State, request: Rollback, time: str, maxlen: int
) -> tuple[State, Commit]:
    check_key(request.root)
    root = state.roots.get(request.root)
    if root is None:
        raise NotFound(f"no root {dotted((request.root,))} to roll back", path=request.root)
    target = root.resolve(request.backto)
    draft = Draft(state, request.tega_id)
    draft.touch(root.name)
    for path, content in node.diff(root.content, root.at(target), (root.name,)):
        draft.apply(Delete(path) if content is ABSENT else Put(path, content))
    return draft.commit(time, maxlen, request.txid, (root.name, root.version - target))


def replay(
    state: State,
    seq: int,
    changes: Iterable[tuple[str, Path, Content]],
    versions: Mapping[str, int],
    chains: Mapping[str, str],
    txid: str | None,
    maxlen: int,
) -> State:
    """The state after a commit that took place before: from the log, or from another server.

    :param changes: PUT or DELETE, the path, and for a PUT the fresh content
    :raises Malformed, Refused, NotFound: where the commit does not fit the state
    """
    draft = Draft(state, "")
    for ope, path, content in changes:
        draft.replay(ope, path, content)
    for name in versions:
        if name not in draft.contents:
            draft.touch(name)
    if draft.versions != versions:
        raise Malformed(f"the commit makes versions {draft.versions}, it says {dict(versions)}")
    return draft.next_state(Result(seq, immutables.Map(versions)), chains, maxlen, txid)


class Draft:
    """Roots under change: what a transaction would make of a state."""

    def __init__(self, state: State, tega_id: str) -> None:
        self.state = state
        self.tega_id = tega_id
        self.contents: dict[str, MaybeContent] = {}
        self.versions: dict[str, int] = {}
        self.changes: list[Change] = []

    def check_expected(self, operations: Iterable[Operation]) -> None:
        """Compare the expected versions with those before the transaction.

        :raises Collision: for the first that differs
        """
        for operation in operations:
            expected = operation.expected
            if expected is None:
                continue
            found = self.state.version_at(operation.path)
            if expected != (MUST_NOT_EXIST if found is None else found):
                path = dotted(operation.path)
                wanted = "nothing there" if expected == MUST_NOT_EXIST else f"version {expected}"
                there = "nothing there" if found is None else f"version {found}"
                raise Collision(
                    f"collision at {path}: expected {wanted}, found {there}: read it again and "
                    "decide anew",
                    path=path,
                    expected=expected,
                    found=found,
                )

    def apply(self, operation: Operation) -> None:
        """Apply one operation to the draft.

        :raises LeafInTheWay, NotFound: judged with the operations before it applied
        """
        path = operation.path
        name = path[0]
        content, current = self._open(name)
        version = self.versions[name]
        tega_id = operation.tega_id or self.tega_id
        ope: Literal["PUT", "DELETE"]
        if isinstance(operation, Put):
            ope, instance = "PUT", operation.content
            self.contents[name] = node.put(content, current, path, instance, version)
            text: bytes | None = encode.text(instance)
        else:
            found = node.lookup(content, current, path)
            self.contents[name] = node.delete(content, current, path, version)
            assert found is not None, "delete would have refused"
            ope, instance = "DELETE", found.content
            text = _bounded_text(instance)
        record = _record(ope, path, tega_id, text, version)
        self.changes.append(Change(ope, path, tega_id, instance, version, record))

    def replay(self, ope: str, path: Path, content: Content) -> None:
        """Apply a logged change, of which no new record is needed."""
        before, current = self._open(path[0])
        version = self.versions[path[0]]
        if ope == "PUT":
            self.contents[path[0]] = node.put(before, current, path, content, version)
        else:
            self.contents[path[0]] = node.delete(before, current, path, version)

    def touch(self, name: str) -> None:
        """Make a version of a root although nothing in it may change."""
        content, current = self._open(name)
        self.contents[name] = node.touched(content, current, self.versions[name])

    def _open(self, name: str) -> tuple[MaybeContent, int]:
        """A root's content in the draft, and the version that it has there."""
        if name in self.contents:
            return self.contents[name], self.versions[name]
        root = self.state.roots.get(name)
        if root is None:
            self.versions[name] = 0
            return ABSENT, 0
        self.versions[name] = root.version + 1
        return root.content, root.version

    def commit(
        self,
        time: str,
        maxlen: int,
        txid: str | None,
        rolled_back: tuple[str, int] | None = None,
    ) -> tuple[State, Commit]:
        """The state with this draft as its newest commit, and the commit."""
        chains = {name: self._chain(name, time) for name in self.contents}
        commit = Commit(
            self.state.seq + 1,
            time,
            self.tega_id,
            tuple(self.changes),
            tuple([(name, self.versions[name]) for name in self.contents]),
            tuple(chains.items()),
            txid,
            rolled_back,
        )
        return self.next_state(commit.result(), chains, maxlen, txid), commit

    def next_state(
        self, result: Result, chains: Mapping[str, str], maxlen: int, txid: str | None
    ) -> State:
        """The state after the draft, with sequence number and chains given."""
        before = self.state
        roots = before.roots
        for name, content in self.contents.items():
            root = roots.get(name)
            if root is None:
                root = Root(name, 0, content, chains[name])
            else:
                root = root.next(content, chains[name], maxlen)
            roots = roots.set(name, root)
        ids = before.ids if txid is None else before.ids.add(txid, result)
        return State(before.life, result.seq, roots, ids)

    def _chain(self, name: str, time: str) -> str:
        root = self.state.roots.get(name)
        before = root.chain if root is not None else self.state.life
        made = f"{before} {self.versions[name]} {time} {self.tega_id}"
        digest = blake2b(made.encode(), digest_size=8)
        for change in self.changes:
            if change.path[0] == name:
                digest.update(change.record)
        return digest.hexdigest()


def _record(ope: str, path: Path, tega_id: str, instance: bytes | None, version: int) -> bytes:
    return b'{"ope":"%b","path":%b,"tega_id":%b%b,"version":%d}' % (
        ope.encode(),
        dumps(wire(path)),
        dumps(tega_id),
        b"" if instance is None else b',"instance":' + instance,
        version,
    )


def _bounded_text(content: Content) -> bytes | None:
    pieces = []
    size = 0
    for piece in encode.plain(content):
        pieces.append(piece)
        size += len(piece)
        if size > _MAX_REMOVED:
            return None
    return b"".join(pieces)
