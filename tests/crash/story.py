"""A story of requests to a database, and the states that it may be found in after a crash."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeAlias

from disks import Call, Mark, RecordingDisk

from tega.database import Database, new_life
from tega.errors import Collision
from tega.log.disk import Disk
from tega.log.file import FileLog
from tega.pending import Pending
from tega.store.commit import Request, Rollback, Transaction, make_delete, make_put
from tega.store.history import State
from tega.store.node import ABSENT, Node, thaw, walk
from tega.store.staging import stage

#: All that a client can tell of a state, to be compared.
Fingerprint: TypeAlias = tuple[Any, ...]

ME = "srv"
MAXLEN = 4


def put(
    path: str, value: Any, txid: str | None = None, expected: int | None = None
) -> Transaction:
    return Transaction((make_put(tuple(path.split(".")), value, expected),), "cli-1", txid)


def delete(path: str) -> Transaction:
    return Transaction((make_delete(tuple(path.split("."))),), "cli-1")


def several(txid: str | None = None) -> Transaction:
    """A transaction of many operations on two roots."""
    return Transaction(
        (
            make_put(("a", "ge-0/0/1"), {"mtu": 9000, "up": True}),
            make_put(("b", "x"), [1, {"k": 2.5}]),
            make_delete(("a", "ge-0/0/0")),
            make_put(("b", "10.0.0.0/24", "metric"), 10),
        ),
        "cli-2",
        txid,
    )


def fingerprint(state: State) -> Fingerprint:
    """Life, sequence number, every readable version with all its nodes, transaction ids."""
    roots = [
        (name, root.first, root.version, root.chain, [_nodes(root.at(v), v, name) for v in (
            *root.old_versions(), root.version
        )])
        for name, root in sorted(state.roots.items())
    ]
    ids = [(txid, result.seq, dict(result.versions)) for txid, result in state.ids.oldest_first()]
    return state.life, state.seq, roots, ids


def _nodes(content: Any, version: int, name: str) -> list[Any]:
    if content is ABSENT:
        return []
    return [
        (path, own, "{}" if type(node) is Node else repr(thaw(node)))
        for path, node, own in walk(content, version, (name,))
    ]


def check_history(db: Database) -> None:
    """What watchers would read back: each version once, in order, up to the newest."""
    for name, root in db.state.roots.items():
        versions = [c.extras.versions[name] for c in db.commits_after(name, -1)]
        assert versions == list(range(root.version + 1 - len(versions), root.version + 1))


def open_database(directory: Path, disk: Disk | None = None, **options: Any) -> Database:
    # With little room at its end, so that it is used up again and again.
    options = {"ahead": 1500} | options
    commit_log = FileLog(
        directory, ME, new_life, snapshot_size=0, keep=1, disk=disk, **options
    )
    return Database(commit_log, ME, MAXLEN)


class Story:
    """A database with all states that its requests lead to, the empty one first.

    :ivar states: in order; a None is the empty database that a failed `clear` may have made
    :ivar acknowledged: index of the last state that somebody was told of; -1 for none
    :ivar is_in_snapshot: whether a snapshot was begun and not finished; `is_in_clear` likewise
    """

    def __init__(self, directory: Path, disk: RecordingDisk, **options: Any) -> None:
        self.disk = disk
        self.states: list[Fingerprint | None] = []
        self.acknowledged = -1
        self.is_in_snapshot = self.is_in_clear = False
        self._mark()
        self.db = open_database(directory, disk, **options)
        self._state = self.db.state
        self._reach(self._state)
        self._acknowledge()

    @property
    def mark(self) -> Mark:
        """How far the requests have come."""
        return Mark(self.acknowledged, len(self.states) - 1)

    def _mark(self) -> None:
        self.disk.calls.append(self.mark)

    def _reach(self, state: State | None) -> None:
        self.states.append(None if state is None else fingerprint(state))
        if state is not None:
            self._state = state

    def _acknowledge(self) -> None:
        self.acknowledged = len(self.states) - 1
        self._mark()

    def submit(self, request: Request) -> Pending:
        """Submit a request, and work out for ourselves what it makes."""
        pending = self.db.submit(request)
        commit = pending.commit
        if commit is not None:
            state, again = stage(self._state, request, commit.time, MAXLEN)
            assert (again.seq, dict(again.versions)) == (commit.seq, dict(commit.versions))
            self._reach(state)
            self._mark()
        return pending

    def commit(self, *requests: Request) -> None:
        """Submit some requests, flush them as one batch, and learn the outcome of each."""
        batch = [self.submit(request) for request in requests]
        self.db.flush()
        if self.db.full:
            # Nothing of it is there, nor will be.
            del self.states[self.acknowledged + 1 :]
            self._state = self.db.state
            self._mark()
        for pending in batch:
            pending.result()
        assert fingerprint(self.db.state) == self.states[-1]
        self._acknowledge()

    def snapshot(self, *meanwhile: Request) -> None:
        """Take a snapshot, with commits while it is written."""
        waiting = list(meanwhile)

        def interrupt(call: Call) -> None:
            if call.kind == "write" and waiting:
                requests, waiting[:] = waiting[:], []
                for request in requests:
                    self.commit(request)

        self.is_in_snapshot = True
        self.disk.listen(interrupt)
        try:
            self.db.snapshot()
        finally:
            self.disk.listen(None)
        self.is_in_snapshot = False

    def clear(self) -> None:
        self.is_in_clear = True
        self._reach(None)
        self._mark()
        self.db.clear()
        self.states.pop()
        self._reach(self.db.state)
        self._acknowledge()
        self.is_in_clear = False

    def collide(self) -> None:
        """Be refused; nothing is made."""
        try:
            self.commit(put("a.ge-0/0/1", 0, expected=99))
        except Collision:
            return
        raise AssertionError("a collision went through")

    def steps(self) -> Iterator[Callable[[], None]]:
        """Some of everything that writes."""
        yield lambda: self.commit(put("a.ge-0/0/0", {"mtu": 1500, "up": False}, "tx-1"))
        yield lambda: self.commit(several("tx-2"))
        yield lambda: self.commit(put("a.text", "x" * 700))
        yield self.collide
        yield lambda: self.commit(
            put("a.text", "} 00000000x", 'tx-"} 00000000x'), put("c", None), delete("b.x"),
            put("c", 7, "tx-2"), Rollback("b", -1, "cli-1", "tx-3"),
        )
        yield lambda: self.commit(delete("c"), put("c.d", {}), Rollback("c", 1, "cli-1"))
        yield lambda: self.snapshot(put("a.n", 1, "tx-4"), Rollback("c", -1, "cli-1"))
        yield lambda: self.commit(put("a.n", 2))
        yield lambda: self.snapshot()
        yield lambda: self.commit(put("b.y", {}, "tx-5"), put("a.n", 3))
        yield self.clear
        yield lambda: self.commit(put("a.m", 1, "tx-6"))
        yield lambda: self.commit(put("d.m", "last"))

    def allowed(self, mark: Mark) -> list[Fingerprint | None]:
        """The states that may be found when requests had come so far."""
        begun: list[Fingerprint | None] = [] if mark.acknowledged >= 0 else [None]
        return begun + self.states[max(mark.acknowledged, 0) : mark.made + 1]


def is_among(found: Fingerprint, allowed: list[Fingerprint | None]) -> bool:
    """Whether a state is one of these; None is the empty database of whatever life."""
    is_empty = found[1:] == (0, [], [])
    return any(is_empty if state is None else state == found for state in allowed)
