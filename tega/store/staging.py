"""Requests against a state: checked, applied, given their versions and sequence number.

The result is the next `State`, and the `Commit` that led there.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Final

import immutables

from tega.errors import Collision, LedElsewhere, Malformed, NoSession, NotFound
from tega.paths import Path, check_key, check_tega_id, check_txid, dotted, wire
from tega.store import encode, ephemeral, node
from tega.store.commit import (
    MUST_NOT_EXIST,
    Change,
    Commit,
    Delete,
    Operation,
    Own,
    Put,
    Rollback,
    Transaction,
)
from tega.store.history import Lead, Result, Root, State
from tega.store.node import ABSENT, EMPTY, Content, MaybeContent, mark_of
from tega.strictjson import dumps

#: Most bytes of a removed subtree that a DELETE's record holds; of a larger one it holds nothing.
#: They are made in one piece, which takes up to 250 ms for a MiB.
_MAX_REMOVED: Final = 1 << 17

#: Paths and tega ids whose JSON text is remembered, most, and the most keys of such a path: agents
#: write to the same few places over and over.
_REMEMBERED: Final = 4096
_SHALLOW: Final = 8


def stage(
    state: State, request: Own, time: str, maxlen: int, live: Container[str] | None = None
) -> tuple[State, Commit]:
    """Check and apply a request.

    :param time: the commit's time, ISO 8601
    :param maxlen: old versions to keep of each root
    :param live: the tega ids that may have ephemeral nodes; None for any
    :returns: the state after it, and the commit
    :raises TegaError: where the request is refused; nothing has changed then
    """
    check_tega_id(request.tega_id)
    if request.txid is not None:
        check_txid(request.txid)
    draft = Draft(state, request.tega_id, live)
    rolled_back = None
    if isinstance(request, Transaction):
        draft.check_expected(request.operations)
        draft.apply_all(request.operations)
    elif isinstance(request, Rollback):
        rolled_back = draft.roll_back(request.root, request.backto)
    else:
        draft.lapse()
    for name in draft.contents:
        if name in state.following:
            raise led_elsewhere(state, name)
    return draft.commit(time, maxlen, request.txid, rolled_back)


def _end_of_run(operations: Sequence[Operation], start: int) -> int:
    """Where a run of operations ends of which all put something lasting into one container."""
    first, end = operations[start], start + 1
    parent = first.path[:-1]
    if not parent or not isinstance(first, Put) or first.ephemeral:
        return end
    while end < len(operations):
        one = operations[end]
        if not isinstance(one, Put) or one.ephemeral or one.path[:-1] != parent:
            break
        end += 1
    return end


def led_elsewhere(state: State, name: str) -> LedElsewhere:
    """What to raise where a root that another server leads would be changed here."""
    leader = state.following[name].leader
    return LedElsewhere(
        f"{dotted((name,))} is led by {leader or 'the global server'}: only there can it be "
        "changed",
        root=name,
        leader=leader,
    )


def candidate(
    state: State,
    operations: Sequence[Operation],
    tega_id: str = "",
    live: Container[str] | None = None,
) -> list[tuple[str, int, MaybeContent]]:
    """The roots that these operations touch as they would be: name, version, content.

    :param tega_id: who would commit them
    :param live: the tega ids that may have ephemeral nodes; None for any
    :raises TegaError: where an operation could not be applied
    """
    draft = Draft(state, tega_id, live)
    draft.apply_all(operations)
    return [(name, draft.versions[name], draft.contents[name]) for name in sorted(draft.contents)]


def replay(
    state: State,
    seq: int,
    changes: Iterable[tuple[str, Path, Content]],
    versions: Mapping[str, int],
    chains: Mapping[str, str],
    txid: str | None,
    maxlen: int,
    touched: Iterable[Path] = (),
    follows: Iterable[tuple[str, Lead | None]] = (),
) -> State:
    """The state after a commit that took place before.

    :param changes: PUT or DELETE, the path, and for a PUT the fresh content
    :param touched: containers that got a version beside those that the changes touch
    :raises Malformed, Refused, NotFound: where the commit does not fit the state
    """
    draft = Draft(state, "")
    for ope, path, content in changes:
        draft.restore(path, ABSENT if ope == "DELETE" else content)
    for path in (*touched, *[(name,) for name in versions if name not in draft.contents]):
        draft.touch(path)
    if draft.versions != versions:
        raise Malformed(f"the commit makes versions {draft.versions}, it says {dict(versions)}")
    return draft.next_state(seq, chains, maxlen, txid, dict(follows))


class Draft:
    """Roots under change: what a transaction would make of a state."""

    __slots__ = (
        "changes", "contents", "ephemerals", "live", "state", "tega_id", "transient", "versions"
    )  # fmt: skip

    def __init__(self, state: State, tega_id: str, live: Container[str] | None = None) -> None:
        self.state = state
        self.tega_id = tega_id
        self.live = live
        self.contents: dict[str, MaybeContent] = {}
        self.versions: dict[str, int] = {}
        self.ephemerals = state.ephemerals
        self.changes: list[Change] = []
        self.transient = False

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
                    path=path, expected=expected, found=found,
                )  # fmt: skip

    def apply_all(self, operations: Sequence[Operation]) -> None:
        """As `apply`, one after the other; many into one container are soon done together."""
        start, size = 0, len(operations)
        if size == 1:
            self.apply(operations[0])
            return
        while start < size:
            end = _end_of_run(operations, start)
            if end - start == 1 or not self._put_together(operations[start:end]):
                for operation in operations[start:end]:
                    self.apply(operation)
            start = end

    def _put_together(self, operations: Sequence[Operation]) -> bool:
        """Apply a run of puts into one container, if that is there, and nothing ephemeral."""
        parent = operations[0].path[:-1]
        before, current = self._open(parent[0])
        version = self.versions[parent[0]]
        puts = [one for one in operations if isinstance(one, Put)]
        given = [(one.path[-1], one.content) for one in puts]
        if mark_of(before) is not None:
            return False
        made = node.put_together(before, current, parent, given, version)
        if made is None:
            return False
        self.contents[parent[0]], stood = made
        for one, replaced in zip(puts, stood, strict=True):
            self._note_put(one, one.tega_id or self.tega_id, version, replaced)
        return True

    def apply(self, operation: Operation) -> None:
        """Apply one operation to the draft.

        :raises LeafInTheWay, NotFound, EphemeralConflict, NoSession: judged with the operations
            before it applied
        """
        path = operation.path
        name = path[0]
        before, current = self._open(name)
        version = self.versions[name]
        tega_id = operation.tega_id or self.tega_id
        if isinstance(operation, Put):
            new = operation.content
            if operation.ephemeral or mark_of(before) is not None:
                owner = tega_id if operation.ephemeral else None
                after, replaced = self._put(before, current, path, new, version, owner)
            else:
                after, replaced = node.put(before, current, path, new, version)
            self._note_put(operation, tega_id, version, replaced)
        else:
            transient = False
            if mark_of(before) is not None:
                after, content, transient = self._delete(before, current, path, version, tega_id)
            else:
                after, content = node.delete(before, current, path, version)
            self._note_delete(path, tega_id, content, version, transient)
        self.contents[name] = after

    def _note_put(self, put: Put, tega_id: str, version: int, replaced: MaybeContent) -> None:
        path, content, transient = put.path, put.content, put.ephemeral
        record = record_of("PUT", path, tega_id, put.text or encode.text(content), version)
        self.changes.append(
            Change("PUT", path, tega_id, content, version, record, replaced, transient)
        )
        if transient:
            self.transient = True

    def _note_delete(
        self, path: Path, tega_id: str, content: Content, version: int, transient: bool
    ) -> None:
        logged = content if transient else ephemeral.lasting(content)
        text = encode.text_within(_MAX_REMOVED, logged)
        record = record_of("DELETE", path, tega_id, text, version)
        self.changes.append(
            Change("DELETE", path, tega_id, content, version, record, content, transient)
        )
        if transient:
            self.transient = True

    def _put(
        self,
        before: MaybeContent,
        current: int,
        path: Path,
        new: Content,
        version: int,
        owner: str | None,
    ) -> tuple[Content, MaybeContent]:
        """Put content where ephemeral nodes may be, as one of them if it has an owner."""
        if owner is not None and self.live is not None and owner not in self.live:
            raise NoSession(
                f"{owner} has no live session, so it cannot have an ephemeral node at "
                f"{dotted(path)}: start a session first, or put it without ephemeral",
                path=dotted(path),
                tega_id=owner,
            )
        after, replaced, top = ephemeral.put(before, current, path, new, version, owner)
        if owner is not None:
            owned = self.ephemerals.get(owner, immutables.Map[Path, bool]())
            self.ephemerals = self.ephemerals.set(owner, owned.set(top, True))
        return after, replaced

    def _delete(
        self, before: MaybeContent, current: int, path: Path, version: int, tega_id: str
    ) -> tuple[MaybeContent, Content, bool]:
        """Remove what stands where ephemeral nodes may be; gives too whether it was one."""
        after, found, transient, tops = ephemeral.delete(before, current, path, version, tega_id)
        if tops:
            owned = self.ephemerals[tega_id]
            for top in tops:
                owned = owned.delete(top)
            others = self.ephemerals.delete(tega_id)
            self.ephemerals = others.set(tega_id, owned) if owned else others
        return after, found, transient

    def restore(self, path: Path, new: MaybeContent) -> MaybeContent:
        """Put content in the lasting tree, or remove it there with `ABSENT`; makes no record of it.

        :returns: what stood at the path
        :raises LeafInTheWay, NotFound, EphemeralConflict: where that cannot be
        """
        content, current = self._open(path[0])
        version = self.versions[path[0]]
        if mark_of(content) is not None:
            made, replaced = ephemeral.restore(content, current, path, new, version)
        elif new is ABSENT:
            made, replaced = node.delete(content, current, path, version)
        else:
            made, replaced = node.put(content, current, path, new, version)
        self.contents[path[0]] = made
        return replaced

    def lapse(self) -> None:
        """Remove all ephemeral nodes of the tega id from the roots that are led here."""
        for path in sorted(self.ephemerals.get(self.tega_id, ())):
            if path[0] not in self.state.following:
                self.apply(Delete(path))

    def roll_back(self, name: str, backto: int) -> tuple[str, int]:
        """Make the lasting content of an old version of a root its newest.

        :returns: the root, and how many versions back that is
        :raises NotFound: where there is no such root or version
        :raises EphemeralConflict: where an ephemeral node stands in the way
        """
        check_key(name)
        root = self.state.roots.get(name)
        if root is None:
            raise NotFound(f"no root {dotted((name,))} to roll back", path=name)
        target = root.resolve(backto)
        self.touch((name,))
        seen: dict[int, Content] = {}
        now, then = [ephemeral.lasting(c, seen) for c in (root.content, root.at(target))]
        for path, content in node.diff(now, then, (name,)):
            self.put_back(path, content, self.tega_id)
        return name, root.version - target

    def put_back(self, path: Path, new: MaybeContent, tega_id: str) -> None:
        """As `restore`, with a record."""
        replaced = self.restore(path, new)
        version = self.versions[path[0]]
        if new is ABSENT:
            content = replaced = ephemeral.lasting(replaced)
            text = encode.text_within(_MAX_REMOVED, content)
            record = record_of("DELETE", path, tega_id, text, version)
            change = Change("DELETE", path, tega_id, content, version, record, replaced)
        else:
            record = record_of("PUT", path, tega_id, encode.text(new), version)
            change = Change("PUT", path, tega_id, new, version, record, replaced)
        self.changes.append(change)

    def touch(self, path: Path) -> None:
        """Make a version of a root, and of the containers down to `path`, without other change.

        :raises NotFound: where there is no such container
        """
        content, current = self._open(path[0])
        self.contents[path[0]] = node.touched(content, current, path, self.versions[path[0]])

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
        touched: tuple[Path, ...] | None = None,
        follows: Mapping[str, Lead] = EMPTY,
    ) -> tuple[State, Commit]:
        """The state with this draft as its newest commit, and the commit.

        :param touched: what it has touched, where that is known
        :param follows: what is known now of the leaders of roots
        """
        if touched is None:
            touched = self._touched() if self.transient else ()
        chains = self._chains(time)
        commit = Commit(
            self.state.seq + 1,
            time,
            self.tega_id,
            tuple(self.changes),
            tuple(self.versions.items()),
            tuple(chains.items()),
            txid,
            rolled_back,
            touched,
            tuple(follows.items()),
        )
        return self.next_state(commit.seq, chains, maxlen, txid, follows), commit

    def _touched(self) -> tuple[Path, ...]:
        """The lowest lasting containers above ephemeral changes, below the roots."""
        parents = [
            ephemeral.lasting_parent(self.contents[change.path[0]], change.path)
            for change in self.changes
            if change.ephemeral
        ]
        return tuple(dict.fromkeys([path for path in parents if len(path) > 1]))

    def next_state(
        self,
        seq: int,
        chains: Mapping[str, str],
        maxlen: int,
        txid: str | None,
        follows: Mapping[str, Lead | None] = EMPTY,
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
        ids = before.ids
        if txid is not None:
            ids = ids.add(txid, Result(seq, immutables.Map(self.versions)))
        leads = followed(before.following, follows.items()) if follows else before.following
        return State(before.life, seq, roots, ids, self.ephemerals, leads, before.hidden)

    def _chains(self, time: str) -> dict[str, str]:
        """The hash of each root after the draft."""
        digests = {}
        for name in self.contents:
            root = self.state.roots.get(name)
            before = root.chain if root is not None else self.state.life_of(name)
            made = f"{before} {self.versions[name]} {time} {self.tega_id}"
            digests[name] = blake2b(made.encode(), digest_size=8)
        for change in self.changes:
            if not change.ephemeral:
                digests[change.path[0]].update(change.record)
        return {name: digest.hexdigest() for name, digest in digests.items()}


def followed(
    following: immutables.Map[str, Lead], changes: Iterable[tuple[str, Lead | None]]
) -> immutables.Map[str, Lead]:
    """Who leads which root after changes of that; None for "this server"."""
    for name, lead in changes:
        if lead is not None:
            following = following.set(name, lead)
        elif name in following:
            following = following.delete(name)
    return following


@lru_cache(_REMEMBERED)
def _path_text(path: Path) -> bytes:
    return dumps(wire(path))


_text = lru_cache(_REMEMBERED)(dumps)


def record_of(ope: str, path: Path, tega_id: str, instance: bytes | None, version: int) -> bytes:
    """A change as the log has it, in JSON; `instance` is what was put or removed."""
    return b'{"ope":"%b","path":%b,"tega_id":%b%b,"version":%d}' % (
        b"PUT" if ope == "PUT" else b"DELETE",
        _path_text(path) if len(path) <= _SHALLOW else dumps(wire(path)),
        _text(tega_id),
        b"" if instance is None else b',"instance":' + instance,
        version,
    )
